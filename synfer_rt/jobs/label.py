"""Labels for images that exist, by the vote of a bundle's annotators.

The result is a table with a line for each image, in the order of the dataset; one that cannot be
read has a line too, which says why. So has one whose label is not understood: a label that nobody
knows is never accepted, for the image may show no face at all.
"""

from __future__ import annotations

import os
from collections import Counter, deque
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from synfer_rt import ranges
from synfer_rt.backends.computation import computation
from synfer_rt.backends.loaded_engines import LoadedEngines
from synfer_rt.bundle import Bundle
from synfer_rt.data.datasets import Dataset, Item
from synfer_rt.data.datasets.items import load
from synfer_rt.data.label_table import Record, Table, Tally
from synfer_rt.errors import UserError
from synfer_rt.faces.alignment import Aligner
from synfer_rt.jobs import runner
from synfer_rt.jobs.aligning import warn_of_unaligned
from synfer_rt.jobs.calibration_file import settings_of
from synfer_rt.jobs.label_results import Labels, Lines
from synfer_rt.jobs.progress import OnProgress, reporter
from synfer_rt.jobs.resuming import resumable
from synfer_rt.jobs.warnings import warn_of_other_images
from synfer_rt.judging.acceptance import Accept, acceptance
from synfer_rt.judging.annotators import Annotators
from synfer_rt.judging.calibration import Calibrated
from synfer_rt.judging.voting import Verdict, vote
from synfer_rt.label_lines import blank_line
from synfer_rt.records import filled

_READERS = 4


@dataclass(frozen=True)
class LabelJob:
    """What decides the labels of `dataset`: a share or a threshold of what is accepted, if any.

    With `calibrated` annotators the lines have label sets. With an `aligner` the annotators see
    aligned faces. Raises UserError for both, and for one outside its range (see `acceptance`).
    """

    dataset: Dataset
    accept_rate: float | None = None
    threshold: float | None = None
    calibrated: Calibrated | None = None
    aligner: Aligner | None = None

    def __post_init__(self) -> None:
        for name in ("accept_rate", "threshold"):
            object.__setattr__(self, name, ranges.plain(getattr(self, name)))
        self.acceptance()

    def acceptance(self) -> Accept:
        """What is accepted, from the first image on."""
        return acceptance(self.accept_rate, self.threshold)

    def settings(self, annotators: Annotators, out: Path) -> dict[str, Any]:
        """The job as JSON values, for the table at `out`."""
        engines = annotators.engines
        return {
            **computation(engines.bundle, engines.backend).settings(),
            "bundle": engines.bundle.bundle_hash,
            "dataset": self.dataset.digest,
            "folder": os.path.relpath(self.dataset.root, out.parent),
            "accept_rate": self.accept_rate,
            "threshold": self.threshold,
            **({} if self.calibrated is None else {"calibration": settings_of(self.calibrated)}),
            **({"align": self.aligner.settings()} if self.aligner else {}),
        }


def label_dataset(
    job: LabelJob,
    engines: LoadedEngines,
    out: Path | None,
    batch: int,
    resume: bool = False,
    on_progress: OnProgress | None = None,
) -> Labels:
    """Label the images that the table at `out` lacks; without `out` all of them, in memory.

    Raises UserError for a bundle without annotators, and as `Table` and `label_images` do.
    """
    annotators = Annotators(engines)
    annotators.load(min(batch, max(len(job.dataset.items), 1)))
    calibrated = job.calibrated
    form = blank_line(engines.bundle, annotators.members, engines.backend, calibrated is not None)
    table = Lines(form) if out is None else Table(out, job.settings(annotators, out), form, resume)
    if isinstance(table, Table) and table.finished:
        return Labels(table, tallied(table), 0)
    warn_of_other_images(engines.bundle)
    if job.aligner is None:
        warn_of_unaligned(job.dataset.items, engines.bundle)
    before, count = table.done, len(job.dataset.items) + len(job.dataset.skipped)
    with resumable(lambda: f"{table.done} of {count} images labelled"):
        report = reporter(on_progress, before, count)
        how = (job.acceptance(), batch, report, calibrated, job.aligner)
        tally = label_images(job.dataset, annotators, table, *how)
    return Labels(table, tally, count - before)


def label_images(
    dataset: Dataset,
    annotators: Annotators,
    table: Table | Lines,
    accept: Accept,
    batch: int,
    on_progress: Callable[[int], None] = lambda images: None,
    calibrated: Calibrated | None = None,
    aligner: Aligner | None = None,
) -> Tally:
    """Label the images of `dataset` that `table` does not have yet, `batch` at a time; finish it.

    A label that the dataset gives counts as the wanted one, if the bundle knows it. What the table
    has is shown to `accept` first, so that it decides as if nothing had interrupted the run.
    `on_progress` is given the number of images labelled so far. See `runner.run` for interruptions
    and errors.
    """
    tally = tallied(table)
    for line in table.records():
        if not line["error"] and not line["label_problem"]:
            accept(Verdict(line["label"], line["probabilities"], line["rectified"]))

    def count(lines: list[Record]) -> None:
        for line in lines:
            tally.add(line)
        on_progress(lines[-1]["index"] + 1)

    lines = _lacking(dataset, annotators, table, accept, batch, calibrated, aligner)
    runner.run(annotators.bundle, lines, table.write, table, count)
    return tally


def tallied(table: Table | Lines) -> Tally:
    """What the lines of a table that are there say in all."""
    tally = Tally()
    for line in table.records():
        tally.add(line)
    return tally


def _lacking(
    dataset: Dataset,
    annotators: Annotators,
    table: Table | Lines,
    accept: Accept,
    batch: int,
    calibrated: Calibrated | None,
    aligner: Aligner | None,
) -> Generator[list[Record]]:
    """The lines that `table` lacks, a piece at a time: of images, then of what is left out."""
    items = dataset.items
    first = max(table.done, len(items))
    yield from _labelled(items, table, annotators, accept, batch, calibrated, aligner)
    left_out = [
        filled(table.form, _unread(first + i, entry.name, entry.reason))
        for i, entry in enumerate(dataset.skipped[first - len(items) :])
    ]
    if left_out:
        yield left_out


def _labelled(
    items: Sequence[Item],
    table: Table | Lines,
    annotators: Annotators,
    accept: Accept,
    batch: int,
    calibrated: Calibrated | None,
    aligner: Aligner | None,
) -> Generator[list[Record]]:
    """The lines of the items that `table` lacks, as they come out of the engines."""
    first = table.done
    size = annotators.at_once(min(batch, max(len(items) - first, 1)))
    reads = partial(load, size=annotators.bundle.image_size, aligner=aligner)
    with closing(_read(items, first, size, batch, reads)) as pieces:
        for images in pieces:
            part = items[first : first + len(images)]
            said = _records(part, images, first, annotators, accept, size, calibrated)
            yield [filled(table.form, fields) for fields in said]
            first += len(part)


def _records(
    items: Sequence[Item],
    images: Sequence[np.ndarray | str],
    first: int,
    annotators: Annotators,
    accept: Accept,
    size: int,
    calibrated: Calibrated | None,
) -> list[Record]:
    """What `accept` and the engines, `size` images at a time, say of some images."""
    bundle = annotators.bundle
    records: list[Record] = [
        _unread(first + i, item.name, str(image))
        for i, (item, image) in enumerate(zip(items, images, strict=True))
    ]
    sound = [i for i, image in enumerate(images) if isinstance(image, np.ndarray)]
    if not sound:
        return records
    # Always as many, for a runtime may compile an engine anew for each size.
    padded = sound + sound[-1:] * (size - len(sound))
    pixels = np.stack([np.asarray(images[i]) for i in padded])
    seen = annotators.see(pixels)
    problems = [label_problem(items[i], bundle) for i in padded]
    wanted = [
        items[i].label if why is None else None for i, why in zip(padded, problems, strict=True)
    ]
    verdicts = vote(seen.opinions, bundle.label_scheme, wanted, calibrated=calibrated)
    aus = annotators.aus(pixels)
    for row, i in enumerate(sound):
        if (unsaid := seen.problem(row)) is not None:
            records[i] = _unread(first + i, items[i].name, unsaid)
            continue
        verdict, problem = verdicts[row], problems[row]
        accepted = accept(verdict) if problem is None else False
        records[i] = {
            "index": first + i,
            "file_name": items[i].name,
            "given_label": items[i].label,
            "written_label": items[i].written,
            "label_problem": problem,
            "label": verdict.label,
            "probabilities": verdict.probabilities,
            "rectified": verdict.rectified,
            "asked": accepted is not None,
            "accepted": accepted,
            "votes": {opinion.annotator: opinion.best(row) for opinion in seen.opinions},
            "aus": None if aus is None else _named(aus[row], bundle.au_names),
            **{name: read[row] for name, read in seen.dimensions.items()},
            **({} if calibrated is None else calibrated.recorded(verdict.label_set)),
        }
    return records


def _unread(index: int, name: str, why: str) -> Record:
    return {"index": index, "file_name": name, "error": why}


def label_problem(item: Item, bundle: Bundle) -> str | None:
    """Why the dataset's label of an image cannot be checked; None if it can, or there is none."""
    if item.not_understood:
        return item.problem
    if item.label is not None and item.label not in bundle.classes:
        return f"{bundle.name} does not know the class {item.label}"
    return None


def _named(aus: np.ndarray, names: Sequence[str]) -> dict[str, float]:
    return {name: round(float(x), 4) for name, x in zip(names, aus, strict=True)}


def _read(
    items: Sequence[Item],
    first: int,
    size: int,
    batch: int,
    reads: Callable[[Item], np.ndarray | str],
) -> Generator[list[np.ndarray | str]]:
    """What `reads` makes of the items from `first` on, `size` at a time.

    A batch of the next ones is read while these are used.
    """
    pool = ThreadPoolExecutor(_READERS, "read")
    coming = iter(items[first:])
    ahead: deque[Future[Any]] = deque()
    try:
        for _ in range(first, len(items), size):
            room = size + batch - len(ahead)
            ahead.extend(pool.submit(reads, item) for item in islice(coming, room))
            yield [ahead.popleft().result() for _ in range(min(size, len(ahead)))]
    finally:
        pool.shutdown(cancel_futures=True)


def check_labels(dataset: Dataset, where: str) -> None:
    """Raise UserError if none of the labels that a user asked for is understood."""
    if any(item.label is not None for item in dataset.items):
        return
    reasons = Counter(item.problem or "it has no label" for item in dataset.items)
    ((reason, count),) = reasons.most_common(1)
    left_out = ""
    if dataset.skipped:
        left_out = f"Left out: {dataset.skipped[0].name} ({dataset.skipped[0].reason}). "
    raise UserError(
        f"No label of {where} is understood; for {count} of {len(dataset.items)} images: {reason}. "
        f"{left_out}Correct that, or leave out `format` and `label_scheme` to label the images "
        "regardless."
    )
