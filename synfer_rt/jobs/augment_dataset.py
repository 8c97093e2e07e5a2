"""The job of `augment`: a dataset whose rare classes are filled up, from settings to result."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from synfer_rt.bundle import Bundle
from synfer_rt.bundle.sizes import format_size
from synfer_rt.data import notebook
from synfer_rt.data.contact_sheet import picture_of, write_contact_sheet
from synfer_rt.data.datasets import Dataset
from synfer_rt.data.writers import read
from synfer_rt.jobs.aligning import warn_of_unaligned
from synfer_rt.jobs.augment import Augmenter, execute
from synfer_rt.jobs.augmentation import Augmentation
from synfer_rt.jobs.balance import Balance
from synfer_rt.jobs.card.card import write_card
from synfer_rt.jobs.destination import Destination
from synfer_rt.jobs.known_faces import keep_faces
from synfer_rt.jobs.originals import some_differ
from synfer_rt.jobs.progress import OnProgress, reporter
from synfer_rt.jobs.resuming import resumable
from synfer_rt.jobs.skipped import write_skipped
from synfer_rt.jobs.warnings import warn_of_other_images
from synfer_rt.records import AUGMENTED

LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class ClassCount:
    """The images of a class after `augment`: originals, additions, and the accepted additions."""

    originals: int
    added: int
    accepted: int


@dataclass(frozen=True)
class Augmented:
    """The dataset in `path` after `augment`: `count` images, by class in `classes`.

    `contact_sheet` is an HTML page with the first additions of each class; None without additions.
    `broken` counts the additions of this call that are flat or not finite, and so not accepted.
    `skipped` are the images of the input that are left out, with the reasons, which `skipped_file`
    lists too. `problems` counts the labels that are not understood by the reason, of the `given`
    labels of the input.
    """

    path: Path
    count: int
    classes: Mapping[str, ClassCount]
    contact_sheet: Path | None
    broken: int
    skipped: tuple[tuple[str, str], ...]
    skipped_file: Path
    problems: Counter[str]
    given: int

    def __repr__(self) -> str:
        counts = ", ".join(f"{k} {v.originals}+{v.added}" for k, v in self.classes.items())
        return f"Augmented({str(self.path)!r}, {self.count} images: {counts})"

    def _repr_html_(self) -> str:
        rows = [(label, n.originals, n.added, n.accepted) for label, n in self.classes.items()]
        head = ("class", "originals", "added", "of these accepted")
        table = notebook.table(head, rows, f"{self.count} images in {self.path}")
        return table + picture_of(self.contact_sheet)


def augment_dataset(
    augmenter: Augmenter,
    read_from: Dataset,
    originals: Dataset,
    balance: Balance,
    to: Destination,
    batch: int,
    on_progress: OnProgress | None = None,
) -> Augmented:
    """Write the images of an augmentation that the output lacks, and its contact sheet.

    `read_from` is the whole input, of which the `originals` are used. Raises UserError as `execute`
    and `Destination.open` do.
    """
    job = augmenter.job
    settings = to.settings_of(augmenter) | {"dataset": originals.digest}
    settings["balance"] = (
        {str(name): int(count) for name, count in balance.items()}
        if isinstance(balance, Mapping)
        else str(balance)
    )
    writer = to.open(settings, augmenter.sampler.engines)
    if job.additions and writer.lacking:
        _warn(job, augmenter.bundle)
    skipped = tuple((entry.name, entry.reason) for entry in originals.skipped)
    listed = write_skipped(to.out, skipped)
    keep_faces(to.out, job.aligner)
    with resumable(lambda: f"{writer.done} of {job.count} images written"):
        execute(augmenter, writer, batch, reporter(on_progress, writer.done, job.count))
    classes = _classes(augmenter, originals.counts(), to.out)
    filled = [name for name, count in classes.items() if count.added]
    sheet = write_contact_sheet(to.out, filled, _is_addition) if filled else None
    write_card(to.out)
    problems = Counter(item.problem or "" for item in read_from.items if item.not_understood)
    given = sum(item.written is not None for item in read_from.items)
    return Augmented(
        to.out, job.count, classes, sheet, augmenter.broken, skipped, listed, problems, given
    )


def _warn(job: Augmentation, bundle: Bundle) -> None:
    """Warn of how the additions may differ from the originals."""
    warn_of_other_images(bundle)
    if job.aligner is None:
        warn_of_unaligned(job.originals, bundle)
    own_sizes = not job.decode_originals and job.aligner is None
    if own_sizes and some_differ(job.originals, bundle.image_size):
        LOG.warning(
            f"The additions are images of {format_size(bundle.image_size)}, but not all originals "
            "are: a classifier may learn the size instead of the class. With "
            "`decode_originals=True` all images have that size."
        )


def _classes(augmenter: Augmenter, counts: Mapping[str, int], out: Path) -> dict[str, ClassCount]:
    """The images of each class that the dataset has, in the bundle's order."""
    accepted = Counter(
        record["label"] for record, _ in read(out) if _is_addition(record) and record["accepted"]
    )
    added = Counter(augmenter.job.additions)
    return {
        name: ClassCount(counts[name], added[name], accepted[name])
        for name in augmenter.bundle.classes
        if counts.get(name)
    }


def _is_addition(record: Mapping[str, Any]) -> bool:
    return record["origin"] == AUGMENTED
