"""The command `synfer-rt distill`: the images that stand best for a run, as a dataset."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from synfer_rt.commands import options


@click.command()
@click.argument("run", type=options.Output())
@click.option("--count", type=int, required=True, help="Images to choose.")
@click.option(
    "--out",
    type=options.LocalPath(),
    metavar="DIR",
    help="Where they are written; new or empty.  [default: RUN-coreset]",
)
@click.option(
    "--method",
    type=click.Choice(["herding", "k-center", "random"]),
    default="herding",
    show_default=True,
    help="herding: the mean of those chosen is that of all. k-center: no image is far from a "
    "chosen one. random: to compare with.",
)
@click.option(
    "--quotas",
    type=click.Choice(["equal", "proportional"]),
    default="equal",
    show_default=True,
    help="Equally many of each class, or in proportion to its images.",
)
@click.option("--every", is_flag=True, help="Choose of all images, not of the accepted ones alone.")
@options.features("covered")
@options.bundle
@click.option("--seed", default=0, show_default=True, help="Draws the random choice.")
@click.option(
    "--format",
    type=click.Choice(["imagefolder", "webdataset", "parquet"]),
    help="How the dataset is written.  [default: as the run]",
)
@options.networks
@click.option("--resume", is_flag=True, help="Go on with the core-set in --out.")
def distill(run: Path | str, **settings: Any) -> None:
    """Choose the images of a finished run that stand best for all others of their class.

    The core-set is a dataset of the same format: image files are copied as they are, with their
    records, which also say the image's number in the run (run_index) and its place in the order in
    which its class was chosen (coreset_rank). So the images with ranks below k are the core-set of
    k images a class. In the folder beside OUT, __OUT__, coreset.csv lists them with the covering
    radius of their class.
    """
    from synfer_rt import api
    from synfer_rt.commands.progress import ProgressBar, console

    with ProgressBar() as bar:
        made = api.distill(run, on_progress=bar, **settings)
    _print(made.classes, console())
    click.echo(f"{made.count} images in {made.path}, listed in {made.table}")


def _print(classes: Any, console: Any) -> None:
    from rich.table import Table

    table = Table("class", "chosen", "of", "covering radius", "mean distance", box=None)
    for column in table.columns[1:]:
        column.justify = "right"
    for name, one in classes.items():
        numbers = f"{one.radius:.4g}", f"{one.distance:.4g}"
        table.add_row(name, str(one.chosen), str(one.of), *numbers)
    console.print(table)
