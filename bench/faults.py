"""What faults cost a run: docs/results/faults.md.

    python -m synfer_rt.bench.faults --kills 100 --out docs/results/faults.md

makes small datasets with real processes in each format by each driver, does every fault to them,
lets them be completed by the same commands, and compares every byte with an undisturbed run of one
process. Its exit code is 1 if anything differs.
"""

from __future__ import annotations

import random
import shutil
import tempfile
import time
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import click
from rich import box
from rich.table import Table

from synfer_rt.bench import machine, report
from synfer_rt.bench.differences import difference
from synfer_rt.bench.fault_injection import DRIVERS, FAULTS, KILLED
from synfer_rt.bench.fault_scenes import Disk, Driver, FaultKind, ImpossibleError, Scene, Usual
from synfer_rt.bench.results import write_page
from synfer_rt.bundle import open_bundle
from synfer_rt.commands import options
from synfer_rt.commands.invocation import typed
from synfer_rt.data.writers import FORMATS
from synfer_rt.errors import UserError
from synfer_rt.jobs.diagnosis import RUNTIMES

_NONE = "none"
_PACKAGES = "synfer-rt", "numpy", "ray", "s3fs", "moto"
_TRIES = 3
"""How often a fault is tried that comes too late for a run."""


@dataclass
class Row:
    """What a fault did to the runs of one driver in one format, of which it met so many `times`."""

    fault: str
    format: str
    driver: str
    times: int = 0
    lost: int = 0
    doubled: int = 0
    differing: int = 0
    faults: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    seconds: float = 0.0

    @property
    def sound(self) -> bool:
        """Whether the runs came out as if nothing had happened."""
        return not (self.lost or self.doubled or self.differing or self.faults or self.problems)


class Trials:
    """The runs of one driver in one format at its place, each in a folder of its own in `folder`.

    `words` are options of `sample`, and `undisturbed` is the folder of the run of one process.
    """

    def __init__(
        self,
        folder: Path,
        words: Sequence[str],
        format: str,
        driver: Driver,
        place: Disk,
        seed: int,
    ) -> None:
        self._folder, self._words, self._driver = folder, [*words, "--format", format], driver
        self._format, self._place, self._number = format, place, 0
        self._draw = random.Random(f"{seed} {format} {driver.name}")
        self._undisturbed, self._usual = folder / "undisturbed", Usual(0, 0)

    def undisturbed(self) -> Row:
        """Make the run, which nothing disturbs, by one process here, and by any other driver."""
        row = Row(_NONE, self._format, self._driver.name, 1)
        one = replace(DRIVERS[0], settings=self._driver.settings)
        here = Scene(self._undisturbed, self._words, one, Disk(), self._draw)
        with _timed(row), here as scene:
            self._usual = scene.complete()
            row.problems += scene.problems
        if (self._driver.processes, self._driver.place) != (one.processes, one.place):
            with _timed(row), self._scene() as scene:
                self._usual = self._complete(scene, row)
        return row

    def row(self, fault: FaultKind) -> Row:
        """Do a fault to a run, and complete it."""
        row = Row(fault.name, self._format, self._driver.name)
        for _ in range(_TRIES):
            with _timed(row), self._scene() as scene:
                row.times += fault.disturb(scene)
                self._complete(scene, row)
            if row.times:
                break
        return row

    def kills(self, wanted: int) -> Row:
        """Kill so many processes, as many as it takes of a run, and complete each run."""
        row = Row(KILLED.name, self._format, self._driver.name)
        for _ in range(10 * wanted + 10):
            if row.times >= wanted:
                return row
            with _timed(row), self._scene() as scene:
                met = row.times
                while row.times < wanted and not scene.finished():
                    row.times += KILLED.disturb(scene)
                if row.times > met:
                    self._complete(scene, row)
        raise UserError(
            "The runs end before their processes can be killed; make them longer with `count`."
        )

    def _scene(self) -> Scene:
        self._number += 1
        folder = self._folder / str(self._number)
        how = self._place, self._draw, self._undisturbed, self._usual
        scene = Scene(folder, self._words, self._driver, *how)
        scene.undo.callback(shutil.rmtree, folder, ignore_errors=True)
        return scene

    def _complete(self, scene: Scene, row: Row) -> Usual:
        usual = scene.complete()
        row.problems += scene.problems
        try:
            found = difference(scene.out, self._undisturbed / "faces")
        except UserError as error:
            row.problems.append(str(error))
            return usual
        row.lost += found.lost
        row.doubled += found.doubled
        row.differing += found.differing
        row.faults += found.faults
        return usual


@contextmanager
def _timed(row: Row) -> Generator[None]:
    """Add the time of the block to a row."""
    started = time.perf_counter()
    yield
    row.seconds += time.perf_counter() - started


def measure(
    words: Sequence[str],
    formats: Sequence[str],
    drivers: Sequence[Driver],
    faults: Sequence[FaultKind],
    kills: int,
    seed: int,
    tell: Callable[[Row], None],
) -> tuple[list[Row], dict[str, str]]:
    """The rows of all faults, and those left out with the reasons.

    `words` are options of `sample`. The `kills` are divided among formats and drivers.
    """
    rows, left_out = list[Row](), dict[str, str]()
    pairs = [(format, driver) for format in formats for driver in drivers]
    pairs = [(format, driver) for format, driver in pairs if format in driver.formats]
    for number, (format, driver) in enumerate(pairs):
        share = kills // len(pairs) + (number < kills % len(pairs))
        with ExitStack() as stack:
            folder = tempfile.TemporaryDirectory(prefix="synfer-rt-faults-")
            try:
                place = stack.enter_context(driver.place())
            except ImpossibleError as error:
                left_out[driver.name] = str(error)
                continue
            where = Path(stack.enter_context(folder))
            trials = Trials(where, words, format, driver, place, seed)
            for row in _rows(trials, format, driver, faults, share, left_out):
                tell(row)
                rows.append(row)
    return rows, left_out


def _rows(
    trials: Trials,
    format: str,
    driver: Driver,
    faults: Sequence[FaultKind],
    kills: int,
    left_out: dict[str, str],
) -> Iterator[Row]:
    yield trials.undisturbed()
    for fault in faults:
        if fault.name not in driver.faults or format not in fault.formats:
            continue
        if fault is KILLED:
            yield trials.kills(kills)
        elif fault.name not in left_out:
            try:
                yield trials.row(fault)
            except ImpossibleError as error:
                left_out[fault.name] = str(error)


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
    yield f"*{_NONE}*: nothing disturbs the run."
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


@click.command()
@options.bundle
@click.option("--kills", default=100, show_default=True, help="Processes that are killed.")
@click.option("--count", default=40, show_default=True, help="Images of each run.")
@click.option("--shard-size", default=5, show_default=True, help="Images in a shard.")
@click.option("--quality", help="A quality of the bundle.  [default: the bundle's]")
@click.option("--backend", default="onnxruntime-cpu", show_default=True)
@click.option("--seed", default=0, show_default=True, help="Decides the moments of the faults.")
@click.option("--format", "formats", type=click.Choice(FORMATS), multiple=True, default=FORMATS)
@click.option(
    "--driver",
    "drivers",
    type=click.Choice([driver.name for driver in DRIVERS]),
    multiple=True,
    help="Only these.  [default: all]",
)
@click.option(
    "--fault",
    "faults",
    type=click.Choice([fault.name for fault in FAULTS]),
    multiple=True,
    help="Only these.  [default: all]",
)
@click.option(
    "--out", "to", type=options.LocalPath(), help="Write a page there, and its numbers as JSON."
)
def main(
    bundle: Path | None,
    kills: int,
    count: int,
    shard_size: int,
    quality: str | None,
    backend: str,
    seed: int,
    formats: tuple[str, ...],
    drivers: tuple[str, ...],
    faults: tuple[str, ...],
    to: Path | None,
) -> None:
    """Disturb runs by every fault, complete them, and compare every byte."""
    given = {"count": count, "shard-size": shard_size, "batch": shard_size, "threads": 1}
    words = [word for name, value in given.items() for word in (f"--{name}", str(value))]
    words += [] if quality is None else ["--quality", quality]
    opened = open_bundle(bundle)
    settings = {
        "command": typed("python -m synfer_rt.bench.faults"),
        "bundle": f"{opened.name} {opened.version}",
        "backend": backend,
        "options": " ".join(words),
    }
    words += ["--backend", backend, "--bundle", str(opened.path)]
    try:
        rows, left_out = measure(
            words,
            formats,
            [driver for driver in DRIVERS if not drivers or driver.name in drivers],
            [fault for fault in FAULTS if not faults or fault.name in faults],
            kills,
            seed,
            lambda row: click.echo(_line(row)),
        )
        result = {
            "machine": machine.describe(1, (*_PACKAGES, *RUNTIMES)),
            "settings": settings,
            "rows": [asdict(row) for row in rows],
            "left_out": left_out,
        }
        if to is not None:
            write_page(to, page(result), result)
    except UserError as error:
        raise click.UsageError(str(error)) from None
    click.get_current_context().exit(not all(row.sound for row in rows))


def _line(row: Row) -> str:
    found = "as if nothing had happened" if row.sound else f"NOT SOUND: {row}"
    return f"{row.fault}, {row.format}, {row.driver}: {row.times} times, {found}"


if __name__ == "__main__":
    main()
