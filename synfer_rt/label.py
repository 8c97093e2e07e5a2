"""`synfer-rt label`: labels for images that exist, by the vote of a bundle's annotators.

The result is a table with a line for each image, in the order of the dataset; one that cannot be
read has a line too, which says why.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import numpy as np

from synfer_rt import options
from synfer_rt.annotate import Accept, Verdict, vote
from synfer_rt.datasets import Dataset, Item
from synfer_rt.datasets.items import load
from synfer_rt.label_table import Record, Table, Tally
from synfer_rt.options import INTERRUPTED, MOST_THREADS, check_number
from synfer_rt.skipped import report_skipped

if TYPE_CHECKING:
    from synfer_rt.ensemble import Ensemble

DEFAULT_FILE = "labels.jsonl"
_READERS = 4


def label_images(
    dataset: Dataset,
    ensemble: Ensemble,
    table: Table,
    accept: Accept,
    batch: int,
    on_progress: Callable[[int], None] = lambda images: None,
) -> Tally:
    """Label the images of `dataset` that `table` does not have yet, `batch` at a time; finish it.

    A label that the dataset gives counts as the wanted one, if the bundle knows it. What the table
    has is shown to `accept` first, so that it decides as if nothing had interrupted the run.
    """
    tally = Tally()
    try:
        for record in table.records():
            tally.add(record)
            if "error" not in record:
                accept(Verdict(record["label"], record["probabilities"], record["rectified"]))
        size = ensemble.bundle.image_size
        for items, images in _read(dataset.items, table.done, batch, size):
            records = _records(items, images, table.done, ensemble, accept)
            table.write(records)
            for record in records:
                tally.add(record)
            on_progress(table.done)
        first = table.done
        left_out = [
            {"index": first + i, "file_name": entry.name, "error": entry.reason}
            for i, entry in enumerate(dataset.skipped[first - len(dataset.items) :])
        ]
        table.write(left_out)
        for record in left_out:
            tally.add(record)
        table.finish(ensemble.bundle.classes)
    finally:
        table.close()
    return tally


def _records(
    items: Sequence[Item],
    images: Sequence[np.ndarray | str],
    first: int,
    ensemble: Ensemble,
    accept: Accept,
) -> list[Record]:
    bundle = ensemble.bundle
    records: list[Record] = [
        {"index": first + i, "file_name": item.name, "error": str(image)}
        for i, (item, image) in enumerate(zip(items, images, strict=True))
    ]
    sound = [i for i, image in enumerate(images) if isinstance(image, np.ndarray)]
    if not sound:
        return records
    pixels = np.stack([np.asarray(images[i]) for i in sound])
    given = [items[i].label for i in sound]
    opinions = ensemble.opinions(pixels)
    wanted = [x if x in bundle.classes else None for x in given]
    verdicts = vote(opinions, bundle.label_scheme, wanted)
    aus = ensemble.aus(pixels)
    for row, i in enumerate(sound):
        verdict = verdicts[row]
        records[i] = {
            "index": first + i,
            "file_name": items[i].name,
            "given_label": given[row],
            "label": verdict.label,
            "label_scheme": bundle.label_scheme,
            "probabilities": verdict.probabilities,
            "rectified": verdict.rectified,
            "accepted": accept(verdict),
            "votes": {opinion.annotator: opinion.best(row) for opinion in opinions},
            "aus": None if aus is None else _named(aus[row], bundle.au_names),
            "bundle": bundle.bundle_hash,
        }
    return records


def _named(aus: np.ndarray, names: Sequence[str]) -> dict[str, float]:
    return {name: round(float(x), 4) for name, x in zip(names, aus, strict=True)}


def _read(
    items: Sequence[Item], first: int, batch: int, size: tuple[int, int]
) -> Iterator[tuple[Sequence[Item], list[np.ndarray | str]]]:
    """Batches of items from `first` on, and their images or why one cannot be read.

    The next batch is read while this one is used.
    """

    def begin(start: int) -> list[Future[Any]]:
        return [pool.submit(load, item, size) for item in items[start : start + batch]]

    with ThreadPoolExecutor(_READERS, "read") as pool:
        ahead = begin(first)
        for start in range(first, len(items), batch):
            ready, ahead = ahead, begin(start + batch)
            yield items[start : start + batch], [future.result() for future in ready]


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
    from synfer_rt.datasets import read_datasets, refuse_inside
    from synfer_rt.paths import is_folder
    from synfer_rt.progress import Progress
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
