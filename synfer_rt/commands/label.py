"""The command `synfer-rt label`."""

from __future__ import annotations

from pathlib import Path

import click

from synfer_rt.commands import options
from synfer_rt.commands.options import INTERRUPTED, MOST_THREADS, check_number
from synfer_rt.commands.skipped import report_skipped

DEFAULT_FILE = "labels.jsonl"


@click.command()
@click.argument("images", nargs=-1, required=True, type=click.Path(path_type=Path))
@options.dataset_layout("--format", "format_")
@options.engines
@options.batch(64, "labelled at once")
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    default=Path(DEFAULT_FILE),
    show_default=True,
    metavar="FILE|DIR",
    help="A .jsonl or .csv file, or a directory for labels.jsonl.",
)
@options.accepting
@options.running
@click.option("--resume", is_flag=True, help="Go on with the table that is in --out.")
def label(
    images: tuple[Path, ...],
    format_: str,
    label_scheme: str | None,
    split: str | None,
    engines: Path | None,
    batch: int,
    out: Path,
    accept_rate: float | None,
    threshold: float | None,
    backend: str,
    threads: int | None,
    resume: bool,
) -> None:
    """Label images that exist: files, folders, or a dataset.

    Each line of the table has the class probabilities that the bundle's annotators agree on, the
    label, whether it replaces one that the dataset gives (rectified), whether it is accepted (by
    --accept-rate or --threshold; else: not rectified), and action units where the bundle reads
    them. An image that cannot be read has a line with the reason.
    """
    from synfer_rt.annotate import acceptance
    from synfer_rt.bundle import open_bundle
    from synfer_rt.commands.progress import Progress
    from synfer_rt.datasets import read_datasets, refuse_inside
    from synfer_rt.label_table import Table
    from synfer_rt.labelling import label_images
    from synfer_rt.paths import is_folder
    from synfer_rt.sampler import Sampler

    check_number("--batch", batch)
    check_number("--threads", threads, MOST_THREADS)
    accept = acceptance(accept_rate, threshold)
    bundle = open_bundle(engines)
    out = out / DEFAULT_FILE if is_folder(out) or not out.suffix else out
    refuse_inside(out, images)
    dataset = read_datasets(images, format_, label_scheme, split)
    ensemble = Sampler(bundle, backend, threads).ensemble
    settings = {
        "bundle": bundle.bundle_hash,
        "dataset": dataset.digest,
        "accept_rate": accept_rate,
        "threshold": threshold,
    }
    ensemble.load()
    table = Table(out, settings, resume)
    if table.finished:
        click.echo(f"{out} is already whole.")
        return
    count = len(dataset.items) + len(dataset.skipped)
    try:
        with Progress(table.done, count) as progress:
            tally = label_images(dataset, ensemble, table, accept, batch, progress.update)
    except KeyboardInterrupt:
        click.echo(
            f"Interrupted with {table.done} of {count} images labelled; run the same command with "
            "--resume to go on.",
            err=True,
        )
        click.get_current_context().exit(INTERRUPTED)
    for name in bundle.classes:
        if tally.labels[name]:
            click.echo(f"{name}: {tally.labels[name]}, accepted {tally.accepted[name]}")
    images_labelled = sum(tally.labels.values())
    click.echo(f"{images_labelled} images labelled, {tally.rectified} rectified: {out}")
    report_skipped(tally.skipped, out)
