"""A calibration of a bundle's annotators on labelled images."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np

from synfer_rt.backends.loaded_engines import LoadedEngines
from synfer_rt.data.datasets import Dataset, Item
from synfer_rt.data.datasets.items import load
from synfer_rt.errors import UserError
from synfer_rt.faces.alignment import Aligner
from synfer_rt.jobs.aligning import warn_of_unaligned
from synfer_rt.jobs.calibration_file import write_calibration
from synfer_rt.jobs.progress import OnProgress, reporter
from synfer_rt.judging.annotators import Annotators, Seen
from synfer_rt.judging.fitting import Fitted, fit
from synfer_rt.judging.voting import Opinion

_READERS = 4


@dataclass(frozen=True)
class Calibrations:
    """What `calibrate` wrote to `path`: see `Fitted`.

    `skipped` are the images that were left out, with the reasons.
    """

    path: Path
    fitted: Fitted
    skipped: tuple[tuple[str, str], ...]

    @property
    def counts(self) -> dict[str, int]:
        """The images that fitted each class's threshold."""
        return {name: len(found) for name, found in self.fitted.calibration.scores.items()}

    def __repr__(self) -> str:
        images = sum(self.counts.values()) + self.fitted.fitted
        return f"Calibrations({str(self.path)!r}, {images} images)"


def calibrate(
    dataset: Dataset,
    engines: LoadedEngines,
    out: Path,
    batch: int,
    on_progress: OnProgress | None = None,
    aligner: Aligner | None = None,
) -> Calibrations:
    """Fit temperatures and thresholds on the images of `dataset` with a label, and write them.

    With an `aligner` the annotators see aligned faces. Copies of an image count once. Raises
    UserError for a bundle without annotators, and without images whose labels it knows.
    """
    annotators, classes = Annotators(engines), engines.bundle.classes
    items = [item for item in dataset.items if item.label in classes]
    skipped = [(item.name, _why(item)) for item in dataset.items if item.label not in classes]
    skipped += [(one.name, one.reason) for one in dataset.skipped]
    if not items:
        why = f" ({skipped[0][0]}: {skipped[0][1]})" if skipped else ""
        raise UserError(
            f"{dataset.path} has no image with a label that {engines.bundle.name} knows{why}; give "
            "labelled images, and the meaning of numbers as `label_scheme`."
        )
    if aligner is None:
        warn_of_unaligned(items, engines.bundle)
    report = reporter(on_progress, 0, len(items))
    size = annotators.at_once(min(batch, len(items)))
    annotators.load(min(batch, len(items)))
    unlabelled, used = len(skipped), list[Item]()
    said: list[list[Opinion]] = []
    known: set[bytes] = set()
    with ThreadPoolExecutor(_READERS, "read") as pool:
        for first in range(0, len(items), size):
            part = items[first : first + size]
            loaded = pool.map(partial(load, size=engines.bundle.image_size, aligner=aligner), part)
            images = [_unless_known(image, known) for image in loaded]
            reasons = {i: image for i, image in enumerate(images) if isinstance(image, str)}
            if read := [i for i in range(len(part)) if i not in reasons]:
                seen = _seen(annotators, [np.asarray(images[i]) for i in read], size)
                found = [seen.problem(row) for row in range(len(read))]
                reasons |= {i: why for i, why in zip(read, found, strict=True) if why}
                rows = [row for row, why in enumerate(found) if why is None]
                said.append([_of_rows(opinion, rows) for opinion in seen.opinions])
            skipped += [(part[i].name, reasons[i]) for i in sorted(reasons)]
            used += [item for i, item in enumerate(part) if i not in reasons]
            report(first + len(part))
    if not used:
        name, why = skipped[unlabelled]
        raise UserError(f"No image of {dataset.path} can be used; the first, {name}: {why}")
    names, truth = [item.name for item in used], [str(item.label) for item in used]
    fitted = fit(_joined(said), engines.bundle.label_scheme, names, truth)
    write_calibration(out, engines.bundle, fitted, dataset, aligner)
    return Calibrations(out, fitted, tuple(skipped))


def _unless_known(image: np.ndarray | str, known: set[bytes]) -> np.ndarray | str:
    """The image, or why it is left out: a copy would count twice, as if it said something new."""
    if isinstance(image, str):
        return image
    digest = hashlib.blake2b(image.tobytes(), digest_size=16).digest()
    if digest in known:
        return "It is a copy of another image: their pixels are equal."
    known.add(digest)
    return image


def _why(item: Item) -> str:
    if item.label is not None:
        return f"the bundle does not know its class {item.label}"
    return item.problem or "it has no label"


def _seen(annotators: Annotators, images: Sequence[np.ndarray], size: int) -> Seen:
    """What the annotators say of images, of which there are always `size` at once."""
    return annotators.see(np.stack([*images, *[images[-1]] * (size - len(images))]))


def _of_rows(opinion: Opinion, rows: Sequence[int]) -> Opinion:
    return replace(opinion, probabilities=opinion.probabilities[list(rows)])


def _joined(parts: Sequence[Sequence[Opinion]]) -> list[Opinion]:
    return [
        Opinion(
            same[0].annotator,
            same[0].scheme,
            np.concatenate([one.probabilities for one in same]),
            same[0].mapping,
        )
        for same in zip(*parts, strict=True)
    ]
