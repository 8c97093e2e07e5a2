"""The command `synfer-rt plan`: what a plan comes to, before it is made."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import click

from synfer_rt.commands import options
from synfer_rt.commands.notes import note
from synfer_rt.commands.quantities import duration, size

if TYPE_CHECKING:
    from synfer_rt.jobs.plan.preview import Counts, Preview


@click.command()
@click.argument("plan", metavar="FILE", type=options.LocalPath())
@options.bundle
@click.option(
    "--layout-from",
    type=options.LocalPath(),
    metavar="DIR|FILE",
    help="The photos of a run.json of a run that started from photos.",
)
@click.option(
    "--measure/--no-measure",
    default=True,
    show_default=True,
    help="Make a few images in a temporary folder, to estimate time and disk.",
)
@options.batch(256, "made at once")
@options.running
def plan(
    plan: Path,
    bundle: Path | None,
    layout_from: Path | None,
    measure: bool,
    batch: int,
    backend: str,
    threads: int | None,
) -> None:
    """Check a plan, and print what it comes to.

    FILE is a YAML, JSON or TOML file, or the run.json of a run; see docs/plans.md. The tables show
    how many images of each class and attribute are made. Time and disk are estimated from a few
    images, which are removed again.
    """
    from synfer_rt import api

    model = api.load(bundle, backend=backend, threads=threads)
    found = model.preview(plan, layout_from=layout_from, measure=measure, batch=batch)
    for text in found.notes:
        note(text)
    _print("class (accepted images)" if found.accepted else "class", found.classes)
    for name, counts in found.attributes.items():
        click.echo()
        _print(name, counts)
    click.echo()
    click.echo(_summary(found))


def _print(what: str, counts: Counts) -> None:
    """A table with a row for each class or word, and a column for each split."""
    from rich.table import Table
    from rich.text import Text

    from synfer_rt.commands.progress import console

    splits = list(counts)
    several = len(splits) > 1
    columns = [*splits, "all"] if several else ["images"]
    table = Table(what, *columns, "share", box=None, header_style="bold")
    for column in table.columns[1:]:
        column.justify = "right"
    rows = dict.fromkeys(row for split in splits for row in counts[split])
    total = sum(sum(numbers.values()) for numbers in counts.values())
    for row in (*rows, "all"):
        numbers = [_number(counts[split], row, rows) for split in splits]
        cells = [*numbers, sum(numbers)] if several else numbers
        share = sum(numbers) / total if total else 0.0
        # A word of a plan is neither markup nor the name of an emoji.
        table.add_row(Text(row or "(nothing)"), *map(str, cells), f"{share:.1%}")
    console().print(table)


def _number(counts: Mapping[str, int], row: str, rows: Mapping[str, None]) -> int:
    return sum(counts.values()) if row == "all" and row not in rows else counts.get(row, 0)


def _summary(found: Preview) -> str:
    """The last lines: how many images, and how long they take."""
    images = f"at most {found.count} images" if found.accepted else f"{found.count} images"
    if found.measured is None or found.seconds is None or found.bytes is None:
        return images
    each = found.measured.seconds_per_image
    speed = f"{1 / each:.1f} images/s" if each < 1 else f"{duration(each)} an image"
    return (
        f"{images}: about {duration(found.seconds)} and {size(found.bytes)}, an estimate from "
        f"{found.measured.images} images ({speed}, ran on {found.measured.ran_on})"
    )
