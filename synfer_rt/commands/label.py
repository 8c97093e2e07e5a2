"""The command `synfer-rt label`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from synfer_rt.commands import options
from synfer_rt.commands.notes import note
from synfer_rt.commands.skipped import report_problems, report_skipped

if TYPE_CHECKING:
    from synfer_rt.jobs.label_results import Labels


@click.command()
@click.argument("images", nargs=-1, required=True, type=options.LocalPath())
@click.option(
    "--out",
    type=options.LocalPath(),
    default=Path("labels.jsonl"),
    show_default=True,
    metavar="FILE|DIR",
    help="A .jsonl or .csv file, or a directory for labels.jsonl.",
)
@options.judged_images()
@options.accepting
@options.calibrating
@options.resuming
def label(
    images: tuple[Path, ...],
    bundle: Path | None,
    backend: str,
    threads: int | None,
    out: Path,
    **settings: Any,
) -> None:
    """Label existing images: files, folders, or a dataset.

    Each line of the table has the class probabilities of the annotators' vote, the label, whether
    it replaces the dataset's label (rectified), whether it is accepted, and action units if the
    bundle reads them. --accept-rate and --threshold accept confident labels. Without them a label
    of the dataset is accepted if the vote and most annotators see it; for an image without a label,
    asked and accepted are false. A label that is not understood is never accepted; its line says
    why. An image that cannot be read has a line with the reason.
    """
    from synfer_rt import api
    from synfer_rt.commands.progress import ProgressBar

    model = api.load(bundle, backend=backend, threads=threads)
    with ProgressBar() as bar:
        labels = model.label(images, out=out, on_progress=bar, **settings)
    if labels.new:
        _print_summary(model.bundle.classes, labels)
    else:
        click.echo(f"{labels.path} is already complete.")


def _print_summary(classes: Sequence[str], labels: Labels) -> None:
    for name in classes:
        if count := labels.labels[name]:
            accepted = f", accepted {labels.accepted[name]}" if labels.asked else ""
            click.echo(f"{name}: {count}{accepted}")
    labelled = labels.labels.total()
    click.echo(f"{labelled} images labelled, {labels.rectified} rectified: {labels.path}")
    if unasked := labelled - labels.asked:
        verb = "has" if unasked == 1 else "have"
        note(f"{unasked} of them {verb} no label to check: asked and accepted are false.")
    report_problems(labels.problems, labels.given, "not accepted")
    report_skipped(labels.skipped, str(labels.path))
