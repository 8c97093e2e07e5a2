"""The command `synfer-rt label`."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from synfer_rt.commands import options
from synfer_rt.commands.annotators import warn_of_other_images
from synfer_rt.commands.interruption import RESUME, going_on
from synfer_rt.commands.notes import note
from synfer_rt.commands.options import MOST_THREADS, check_number, check_resuming
from synfer_rt.commands.skipped import report_problems, report_skipped
from synfer_rt.errors import UserError

if TYPE_CHECKING:
    from synfer_rt.bundle import Bundle
    from synfer_rt.data.datasets import Dataset
    from synfer_rt.data.label_table import Tally

DEFAULT_FILE = "labels.jsonl"


@click.command()
@click.argument("images", nargs=-1, required=True, type=options.LocalPath())
@options.dataset_format("--format", "format_")
@options.bundle
@options.batch(64, "labelled at once")
@click.option(
    "--out",
    type=options.LocalPath(),
    default=Path(DEFAULT_FILE),
    show_default=True,
    metavar="FILE|DIR",
    help="A .jsonl or .csv file, or a directory for labels.jsonl.",
)
@options.accepting
@options.running
@options.resuming
def label(
    images: tuple[Path, ...],
    format_: str,
    label_scheme: str | None,
    split: str | None,
    bundle: Path | None,
    batch: int,
    out: Path,
    backend: str,
    threads: int | None,
    resume: bool,
    mix_backends: bool,
    **accepting: float | None,
) -> None:
    """Label images that exist: files, folders, or a dataset.

    Each line of the table has the class probabilities that the bundle's annotators vote for, the
    label, whether it replaces one that the dataset gives (rectified), whether it is accepted, and
    action units where the bundle reads them. By --accept-rate or --threshold what is confident is
    accepted; else a label of the dataset that the vote and most annotators see. Where it has none,
    nothing was asked, and asked is false like accepted. A label that is not understood is never
    accepted, and its line says why. An image that cannot be read has a line with the reason.
    """
    from synfer_rt.backends.loaded_engines import LoadedEngines
    from synfer_rt.bundle import open_bundle
    from synfer_rt.commands.progress import Progress
    from synfer_rt.commands.resuming import as_begun, choose_computation
    from synfer_rt.data.label_table import Table, begun_with
    from synfer_rt.jobs.label import label_images
    from synfer_rt.judging.acceptance import acceptance
    from synfer_rt.judging.annotators import Annotators
    from synfer_rt.paths import is_folder
    from synfer_rt.records import blank_line

    check_number("--batch", batch)
    check_number("--threads", threads, MOST_THREADS)
    check_resuming(resume, mix_backends)
    accept = acceptance(**accepting)
    out = out / DEFAULT_FILE if is_folder(out) or not out.suffix else out
    begun = begun_with(out) if resume else None
    opened = as_begun(open_bundle(bundle), begun)
    dataset = _read(images, out, format_, label_scheme, split)
    lacking = None if out.exists() else begun
    where, _ = choose_computation(backend, opened, out, lacking, mix_backends)
    ensemble = Annotators(LoadedEngines(opened, where.backend, threads))
    settings = {
        **where.settings(),
        "bundle": opened.bundle_hash,
        "dataset": dataset.digest,
        "folder": os.path.relpath(dataset.root, out.parent),
        **accepting,
    }
    ensemble.load()
    form = blank_line(opened, ensemble.members, where.backend)
    table = Table(out, settings, form, resume)
    if table.finished:
        click.echo(f"{out} is already whole.")
        return
    warn_of_other_images(opened)
    count = len(dataset.items) + len(dataset.skipped)
    with (
        going_on(lambda: f"Interrupted with {table.done} of {count} images labelled; {RESUME}"),
        Progress(table.done, count) as progress,
    ):
        tally = label_images(dataset, ensemble, table, accept, batch, progress.update)
    _print_summary(tally, opened, out)


def _read(
    images: Sequence[Path], out: Path, format_: str, label_scheme: str | None, split: str | None
) -> Dataset:
    """The images, with labels where those were asked for. Raises UserError for what cannot be."""
    from synfer_rt.data.datasets import read_datasets, refuse_inside

    refuse_inside(out, images)
    dataset = read_datasets(images, format_, label_scheme, split)
    if label_scheme is not None or format_ not in ("auto", "images"):
        check_labels(dataset, " and ".join(map(str, images)))
    return dataset


def _print_summary(tally: Tally, bundle: Bundle, out: Path) -> None:
    for name in bundle.classes:
        if tally.labels[name]:
            accepted = f", accepted {tally.accepted[name]}" if tally.asked else ""
            click.echo(f"{name}: {tally.labels[name]}{accepted}")
    images_labelled = sum(tally.labels.values())
    click.echo(f"{images_labelled} images labelled, {tally.rectified} rectified: {out}")
    if unasked := images_labelled - tally.asked:
        verb = "has" if unasked == 1 else "have"
        note(f"{unasked} of them {verb} no label to check: asked and accepted are false.")
    report_problems(tally.problems, tally.given, "not accepted")
    report_skipped(tally.skipped, out)


def check_labels(dataset: Dataset, where: str) -> None:
    """Raise UserError for a dataset whose labels were asked for, and none of them is understood."""
    if any(item.label is not None for item in dataset.items):
        return
    reasons = Counter(item.problem or "it has no label" for item in dataset.items)
    ((reason, count),) = reasons.most_common(1)
    left_out = ""
    if dataset.skipped:
        left_out = f"Left out is {dataset.skipped[0].name} ({dataset.skipped[0].reason}). "
    raise UserError(
        f"No label of {where} was understood; of {count} of {len(dataset.items)} images: {reason}. "
        f"{left_out}Mend that, or leave out --format and --label-scheme to label them all the same."
    )
