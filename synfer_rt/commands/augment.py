"""The command `synfer-rt augment`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from synfer_rt.commands import options, parsing
from synfer_rt.commands.notes import note
from synfer_rt.commands.skipped import report_problems, report_skipped


@click.command()
@click.argument("dataset", type=options.LocalPath())
@click.option(
    "--out",
    type=options.LocalPath(),
    required=True,
    metavar="DIR",
    help="Where originals and additions are written; new or empty.",
)
@click.option(
    "--balance",
    type=parsing.Balance(),
    default="max",
    show_default=True,
    metavar="max|COUNT|FILE",
    help="Images of each class: as many as the largest, a number, or a JSON file of numbers.",
)
@click.option("--noise-scale", default=8.0, show_default=True, help="Noise around the posterior.")
@click.option(
    "--repair-steps",
    default=4,
    show_default=True,
    help="Diffusion steps after the noise; 0 for none.",
)
@click.option(
    "--repair-strength",
    default=0.5,
    show_default=True,
    help="How much of the image these steps make anew.",
)
@click.option(
    "--attempts", default=4, show_default=True, help="Attempts until the vote sees the class."
)
@click.option(
    "--decode-originals",
    is_flag=True,
    help="Pass the originals through the VAE too, in the bundle's size.",
)
@options.seed
@options.reading("--input-format")
@options.written_format
@options.bundle
@options.batch(64, "made at once")
@options.running
@options.resuming
def augment(
    dataset: Path,
    out: Path,
    bundle: Path | None,
    backend: str,
    threads: int | None,
    **settings: Any,
) -> None:
    """Fill up the rare classes of a labelled dataset with variations of their own images.

    OUT gets every original that can be read, in its own size unless --decode-originals or --align
    is given, and the additions in the bundle's size; those made from grey images are grey. The
    record of an image says which of the two it is (origin), what it was made from (source), and
    whether the vote and most annotators see its class (accepted). The input is only read. In the
    folder beside OUT, __OUT__, skipped.jsonl lists the images that are left out, and
    contact-sheet.html shows the first additions of each class.
    """
    from synfer_rt import api
    from synfer_rt.commands.progress import ProgressBar

    model = api.load(bundle, backend=backend, threads=threads)
    with ProgressBar() as bar:
        made = model.augment(dataset, out, on_progress=bar, **settings)
    for name, count in made.classes.items():
        click.echo(f"{name}: {count.originals} + {count.added}, accepted {count.accepted}")
    look = f"; look at {made.contact_sheet}" if made.contact_sheet else ""
    click.echo(f"{made.count} images in {out}{look}")
    if made.broken:
        note(
            f"{made.broken} additions are flat or not finite, and not accepted; a lower "
            "`noise_scale` or more `repair_steps` may help."
        )
    report_problems(made.problems, made.given, "left out")
    report_skipped(made.skipped, made.skipped_file)
