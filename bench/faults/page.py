"""The page of faults: docs/results/faults.md."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from rich import box
from rich.table import Table

from synfer_rt.bench import report
from synfer_rt.bench.faults.injection import DRIVERS, FAULTS
from synfer_rt.bench.faults.trials import NONE, Row


def page(result: Mapping[str, Any]) -> str:
    """The page of all rows, in Markdown."""
    settings, rows = result["settings"], [Row(**row) for row in result["rows"]]
    killing = {kind.name for kind in FAULTS if kind.kills}
    killed = sum(row.times for row in rows if row.fault in killing)
    unsound = [row for row in rows if not row.sound]
    verdict = f"{len(unsound)} of the {len(rows)} rows are not as they should be"
    if not unsound:
        verdict = f"In all {len(rows)} rows nothing was lost, doubled or changed"
    lines: tuple[str | Table, ...] = (
        f"Written by `{settings['command']}`.",
        *report.on_machine(result["machine"]),
        f"Runs of {settings['bundle']} on {settings['backend']}, made by "
        f"`synfer-rt sample {settings['options']}`. They are disturbed, and then completed by the "
        "same commands. Every byte of the output is compared with an undisturbed run of one "
        "process, and all of it is read as `synfer-rt verify` does.",
        f"**{killed} processes were killed. {verdict}.**",
        _table(rows),
        report.listed(_points(rows, result["left_out"])),
    )
    return f"# What faults cost a run\n\n{report.markdown(iter(lines)).strip()}\n"


def _points(rows: Sequence[Row], left_out: Mapping[str, str]) -> Iterator[str]:
    """What the table's words mean, what is not in it, and what is not as it should be."""
    there = {name for row in rows for name in (row.fault, row.driver)}
    yield f"*{NONE}*: nothing disturbs the run."
    yield from (f"*{kind.name}*: {kind.means}." for kind in FAULTS if kind.name in there)
    known = (driver for driver in DRIVERS if driver.means and driver.name in there)
    yield from (f"*{driver.name}*: {driver.means}." for driver in known)
    yield (
        "*times* are processes that were killed, or that ended since they could not write, or "
        "connections that were cut; else they are runs."
    )
    yield "*lost* and *doubled* are images, *differing* are bytes of the dataset and its card."
    yield (
        "*faults* are what `verify` finds, files that are left over, and processes that do not end "
        "as they should: with exit code 0, or with 2 and one sentence."
    )
    yield from (f"Left out: {name}; {why}." for name, why in left_out.items())
    for row in rows:
        for what in (*row.faults, *row.problems):
            yield f"**{row.fault}, {row.format}, {row.driver}**: {what}"


def _table(rows: Sequence[Row]) -> Table:
    numbers = ("times", "lost", "doubled", "differing", "faults", "seconds")
    table = Table(box=box.MARKDOWN, padding=(0, 1, 0, 0))
    for name in ("fault", "format", "driver"):
        table.add_column(name, no_wrap=True)
    for name in numbers:
        table.add_column(name, justify="right", no_wrap=True)
    for row in rows:
        counts = row.times, row.lost, row.doubled, row.differing, len(row.faults + row.problems)
        cells = [row.fault, row.format, row.driver, *map(str, counts), f"{row.seconds:.1f}"]
        report.add(table, cells)
    return table
