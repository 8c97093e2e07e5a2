"""The core-set of a run: the images that stand best for each class, as a dataset.

It is a dataset like the run, with the bytes of its images, and with their records. What is found on
the way is kept in its own folder: first the features of all images, then the table of those chosen.
So a core-set that is interrupted goes on, and chooses what it would have chosen.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from threading import Lock
from typing import Any

from synfer_rt import ranges
from synfer_rt.bundle import Bundle
from synfer_rt.coresets.choice import HERDING, METHODS, RANDOM
from synfer_rt.data import notebook, writers
from synfer_rt.data.contact_sheet import picture_of, write_contact_sheet
from synfer_rt.data.writers import run_file
from synfer_rt.data.writers.working_copy import shown
from synfer_rt.errors import UserError
from synfer_rt.jobs.card.card import write_card
from synfer_rt.jobs.coreset.choice import FILE, Chosen, choose_images, read_table, write_table
from synfer_rt.jobs.coreset.features import compute_features, files_of
from synfer_rt.jobs.coreset.stock import EQUAL, QUOTAS, Stock, run_index, stock_of
from synfer_rt.jobs.evaluation.job import check_parts, maker_of
from synfer_rt.jobs.evaluation.networks import FEATURES, Opener, own_features
from synfer_rt.jobs.progress import OnProgress, reporter
from synfer_rt.jobs.resuming import resumable
from synfer_rt.networks.image_network import ImageNetwork
from synfer_rt.paths import resolved
from synfer_rt.records import CORESET, FILE_NAME, Record, blank_record, fields_of

LOG = logging.getLogger(__name__)
_AT_ONCE = 64
_OF_WHOLE_RUNS = frozenset(
    (
        *("made", "count", "shard_size", "accept_rate", "accepted_per_class", "class_counts"),
        run_file.RAN_ON,
    )
)
"""Settings of a run that decide which images it has, and so are not those of its core-set."""


@dataclass(frozen=True)
class CoresetJob:
    """How a core-set of `count` images is chosen.

    `method` is one of choice.METHODS, `quotas` one of stock.QUOTAS. With `every`, images
    count that are not accepted, too. `features` is a file and its description, and `seed` draws a
    random choice. Raises UserError for values that do not fit.
    """

    count: int
    method: str = HERDING
    quotas: str = EQUAL
    every: bool = False
    features: tuple[Any, str] | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        ranges.whole("count", self.count, 1)
        ranges.whole("seed", self.seed)
        ranges.flag("every", self.every)
        check_parts("features", self.features, 2)
        for name, known in (("method", METHODS), ("quotas", QUOTAS)):
            if (given := getattr(self, name)) not in known:
                raise UserError(f"`{name}` must be one of {', '.join(known)}, got {given!r}.")
        if self.seed and self.method != RANDOM:
            raise UserError(
                f"`seed` draws a random choice, and {self.method} draws nothing; leave it out, or "
                'choose `method="random"`.'
            )


@dataclass(frozen=True)
class ClassCoverage:
    """Of a class, `chosen` images `of` those that could be.

    `radius` is the largest distance of one of these to the nearest chosen one, and `distance` the
    mean.
    """

    chosen: int
    of: int
    radius: float
    distance: float


@dataclass(frozen=True)
class Coreset:
    """The core-set in `path`: `count` images, by class in `classes`.

    `table` is a CSV file with a line for each: its number here and in the run, its label, its rank
    in the order of its class, and what its class is covered by up to it. `contact_sheet` is an HTML
    page with the first images of each class.
    """

    path: Path
    count: int
    classes: Mapping[str, ClassCoverage]
    table: Path
    contact_sheet: Path

    def __repr__(self) -> str:
        counts = ", ".join(f"{k} {v.chosen} of {v.of}" for k, v in self.classes.items())
        return f"Coreset({str(self.path)!r}, {self.count} images: {counts})"

    def _repr_html_(self) -> str:
        rows = [
            (label, n.chosen, n.of, f"{n.radius:.4g}", f"{n.distance:.4g}")
            for label, n in self.classes.items()
        ]
        head = ("class", "chosen", "of", "covering radius", "mean distance")
        table = notebook.table(head, rows, f"{self.count} images in {self.path}")
        return table + picture_of(self.contact_sheet)


def make_coreset(
    run: Path,
    out: Path,
    job: CoresetJob,
    bundle: Bundle | Path | str | None,
    opener: Opener,
    format: str | None = None,
    resume: bool = False,
    on_progress: OnProgress | None = None,
) -> Coreset:
    """Write the core-set of the finished run in `run` into `out`, in `format` or the run's own.

    With `resume` one that is there goes on. Raises UserError for a run that is not finished or
    damaged, or has too few images, for networks that cannot be used, and as
    `writers.open_output` does.
    """
    stock = stock_of(run, job.every)
    _check_apart(run, out)
    quotas = stock.quotas(job.count, job.quotas)
    network = _network(stock, job, bundle, opener)
    settings = _settings(stock, job, network, format)
    shard_size = int(stock.settings["shard_size"])
    writer = writers.open_output(out, settings, resume=resume, shard_size=shard_size)
    before = sum(stock.counts.values()) + (0 if job.method == RANDOM else job.count)
    report = reporter(on_progress, 0, before + job.count)
    try:
        with resumable(lambda: f"{writer.done} of {job.count} images written"):
            chosen = _chosen(stock, job, quotas, network, out, opener.threads, report)
            copies = _copies(stock, chosen, writer.lacking, settings)
            while piece := list(islice(copies, _AT_ONCE)):
                writer.write([record for record, _ in piece], [image for _, image in piece])
                report(before + writer.done)
            writer.finish()
    finally:
        writer.close()
        writers.discard_empty(out)  # where nothing is kept yet, other settings may follow
    report(before + job.count)
    for file in files_of(out):
        file.unlink()
    counts = {label: quota for label, quota in quotas.items() if quota}
    sheet = write_contact_sheet(out, list(counts), lambda r: r["requested_label"] in counts)
    write_card(out)
    last = {one.label: one for one in sorted(chosen, key=lambda one: one.rank)}
    classes = {
        label: ClassCoverage(quota, stock.counts[label], last[label].radius, last[label].distance)
        for label, quota in counts.items()
    }
    return Coreset(out, len(chosen), classes, run_file.folder(out) / FILE, sheet)


def _check_apart(run: Path, out: Path) -> None:
    one, other = resolved(run), resolved(out)
    if one == other or one in other.parents:
        raise UserError(f"`out` {out} lies in the run {run}; choose a folder beside it.")


def _network(
    stock: Stock, job: CoresetJob, bundle: Bundle | Path | str | None, opener: Opener
) -> ImageNetwork:
    """The network in whose features images are chosen: the one given, or the maker's own."""
    if job.features is not None:
        return opener.described(*job.features, "features", FEATURES)
    maker = maker_of(stock.settings, bundle)
    if maker is None:
        raise UserError(
            "The run was not made by the bundle that ships with synfer-rt; give the one that made "
            "it as `bundle`, or a network as `features`."
        )
    network = own_features(maker, opener)
    if network is None:
        raise UserError(
            f"{maker.name} has no network whose features can be compared; give one as `features`."
        )
    return network


def _settings(
    stock: Stock, job: CoresetJob, network: ImageNetwork, format: str | None
) -> dict[str, Any]:
    """What decides the files of a core-set, for run.json: also how the images were made."""
    kept = {k: v for k, v in stock.settings.items() if k not in _OF_WHOLE_RUNS}
    return {
        **kept,
        "format": format or kept["format"],
        "count": job.count,
        CORESET: job.method,
        "coreset_quotas": job.quotas,
        "coreset_seed": job.seed,
        "coreset_every": job.every,
        "coreset_features": {**network.settings(), "of_bundle": job.features is None},
        "coreset_images": sum(stock.counts.values()),
        "coreset_run": stock.digest,
    }


def _chosen(
    stock: Stock,
    job: CoresetJob,
    quotas: Mapping[str, int],
    network: ImageNetwork,
    out: Path,
    threads: int,
    report: Callable[[float], None],
) -> list[Chosen]:
    """The images of the core-set, as the table in its own folder says, which else is made.

    `report` is given the number of images computed, and of those chosen after them.
    """
    chosen = read_table(out, quotas)
    if chosen is not None:
        return chosen
    _warn_of_few(stock, quotas, job)
    features = compute_features(stock, network, out, report)
    lock, done = Lock(), sum(stock.counts.values())

    def on_chosen() -> None:
        nonlocal done
        with lock:
            done += 1
            report(done)

    chosen = choose_images(features, quotas, job.method, job.seed, threads, on_chosen)
    write_table(out, chosen)
    return chosen


def _warn_of_few(stock: Stock, quotas: Mapping[str, int], job: CoresetJob) -> None:
    """Warn of classes that have fewer images than equal quotas ask for, and that get none."""
    few = [name for name, n in stock.counts.items() if n == quotas[name] < max(quotas.values())]
    if few and job.quotas == EQUAL:
        kind = "images" if job.every else "accepted images"
        counts = ", ".join(f"{name} {stock.counts[name]}" for name in few)
        LOG.warning(f"Classes with too few {kind} for equal quotas: {counts}; others fill up.")
    if without := [name for name, n in stock.counts.items() if n and not quotas[name]]:
        LOG.warning(
            f"{job.count} images are too few for every class: {', '.join(without)} get none."
        )


def _copies(
    stock: Stock,
    chosen: Sequence[Chosen],
    lacking: Sequence[int],
    settings: Mapping[str, Any],
) -> Iterator[tuple[Record, bytes]]:
    """The records and image files of those that are `lacking`, in the order of their indices.

    Fields of a core-set with these settings that the run's records do not have are empty.
    """
    missing = set(lacking)
    wanted = {one.run_index: one for one in chosen if one.index in missing}
    if not wanted:
        return
    form = blank_record(settings["classes"], settings["au_vocabulary"], fields_of(settings))
    for record, image in stock.samples():
        one = wanted.pop(run_index(record), None)
        if one is not None:
            own = {name: value for name, value in record.items() if name != FILE_NAME.name}
            place = {"index": one.index, "run_index": one.run_index, "coreset_rank": one.rank}
            yield {**form, **own, **place}, image
    if wanted:
        raise UserError(
            f"{shown(stock.out)} has changed since its core-set was begun: {len(wanted)} images "
            "are gone; restore them, or choose another `out`."
        )
