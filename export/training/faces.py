"""The labelled faces that a network is trained and measured on, from any dataset that is read."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np

from synfer_rt.data.datasets import Dataset, Item
from synfer_rt.data.datasets.items import load
from synfer_rt.errors import UserError
from synfer_rt.export.training import cache
from synfer_rt.export.training.held_out import every_other, hold_out
from synfer_rt.export.training.stages import Stage
from synfer_rt.faces.alignment import Aligner
from synfer_rt.vocabulary import label_schemes

FEWEST = 8
"""Images of a class, at least, that a network is trained on."""
HELD_OUT = ("auto", "val", "test", "persons", "images")
"""How the held-out images are chosen; see `read_faces`."""
_RESERVED = ("val", "test")
"""Splits that nothing is trained on, unless the user names one."""
_READERS = 4
_AT_ONCE = 64

Images = Callable[[np.ndarray], np.ndarray]
"""Row numbers int [n] -> images uint8 [n, H, W, 3]."""
_Reads = Callable[[Item], np.ndarray | str]


@dataclass(frozen=True)
class Faces:
    """Labelled faces. `train` and `held` are numbers of rows of `images`, `classes` and `names`.

    `classes` int64 [N] are those of the label scheme `scheme`. `by` says how the rows of `held`
    were chosen, and `fitting` bool [len(held)] which of them a temperature may be fitted on. `key`
    names the pixels, for what is kept of them. `remarks` are sentences on what was left out.
    """

    images: Images = field(repr=False)
    classes: np.ndarray
    names: Sequence[str]
    train: np.ndarray
    held: np.ndarray
    fitting: np.ndarray
    by: str
    key: str
    scheme: str
    remarks: tuple[str, ...] = ()

    @property
    def digest(self) -> str:
        """SHA-256 of everything that a training depends on: pixels, classes, both parts."""
        parts = (cache.digest(part) for part in (self.classes, self.train, self.held))
        return hashlib.sha256("".join((self.key, *parts)).encode()).hexdigest()

    def limited(self, most: int | None, seed: int) -> np.ndarray:
        """The rows to train on in a random order, at most `most` of them.

        Raises UserError if these are without an image of some class.
        """
        rows = np.random.default_rng(seed).permutation(self.train)[:most]
        for i, name in enumerate(label_schemes.scheme(self.scheme)):
            if i not in self.classes[rows]:
                raise UserError(
                    f"Among {_images(len(rows))}, drawn for `images`, is none of {name}; ask for "
                    "more."
                )
        return rows


def read_faces(
    dataset: Dataset,
    scheme: str,
    size: tuple[int, int],
    work: Path,
    stage: Stage,
    held_out: str = "auto",
    one_split: bool = False,
    aligner: Aligner | None = None,
) -> Faces:
    """The labelled images of `dataset` whose classes are in `scheme`, cropped to `size` (H, W).

    With an `aligner` they are aligned faces of this size, which are found once and kept in `work`.

    `held_out` says what is measured on: the dataset's own split "val" or "test"; a tenth of each
    class, of whole "persons" if the dataset names them, or of "images" by their pixels. "auto" is
    the first of val, persons and images that the dataset has. Other images of the splits val and
    test are not used, unless `one_split` says that the dataset is one split alone. Images with the
    pixels of a held-out one are not trained on. What was seen of the pixels is kept in `work`.

    Raises UserError for a dataset without labels that are understood, for one that is held out in a
    way that it has not, and for too few images of a class.
    """
    known, remarks = _of_scheme(dataset, scheme)
    by, known = _way(dataset, known, held_out, one_split)
    reads = partial(load, size=size, aligner=aligner)
    digests, kept = _looked_at(dataset, known, reads, size, aligner, work, stage)
    remarks += _unusable(known, digests, reads)
    good = np.flatnonzero([bool(digest) for digest in digests])
    items = [item for item, digest in zip(known, digests, strict=True) if digest]
    if not items:
        raise UserError(f"{_where(dataset)} has no image that can be used; {remarks[-1]}")
    digests = list(filter(None, digests))
    names = label_schemes.scheme(scheme)
    classes = np.array([names.index(str(item.label)) for item in items])
    groups, held = _held_out(items, digests, classes, by)
    seen = {digest for digest, out in zip(digests, held, strict=True) if out}
    twins = ~held & np.array([digest in seen for digest in digests])
    if twins.any():
        remarks.append(
            f"{_images(int(twins.sum()))} have the pixels of a held-out one and are left out"
        )
    _check(_where(dataset), classes, ~held & ~twins, held, names)
    return Faces(
        _reader(items, reads) if kept is None else _kept(kept, good),
        classes,
        [item.name for item in items],
        np.flatnonzero(~held & ~twins),
        np.flatnonzero(held),
        every_other([group for group, out in zip(groups, held, strict=True) if out]),
        by,
        hashlib.sha256("".join(digests).encode()).hexdigest(),
        scheme,
        tuple(remarks),
    )


def _where(dataset: Dataset) -> str:
    return str(dataset.path) if str(dataset.path) != "." else "The dataset"


def _images(count: int) -> str:
    return "1 image" if count == 1 else f"{count} images"


def _of_scheme(dataset: Dataset, scheme: str) -> tuple[list[Item], list[str]]:
    """The images that show a class of `scheme`, and sentences on the others."""
    names, where = label_schemes.scheme(scheme), _where(dataset)
    labelled = [item for item in dataset.items if item.label is not None]
    if not labelled:
        reasons = Counter(item.problem or "it has no label" for item in dataset.items)
        ((reason, count),) = reasons.most_common(1)
        raise UserError(
            f"No label of {where} is understood; for {count} of {len(dataset.items)} images: "
            f"{reason}. Correct that, or name the `label_scheme` or the `format` of the dataset."
        )
    remarks: list[str] = []
    if rest := len(dataset.items) - len(labelled):
        remarks.append(f"{_images(rest)} have no label that is understood and are left out")
    others = Counter(str(item.label) for item in labelled if item.label not in names)
    if others:
        listed = ", ".join(f"{name} ({count})" for name, count in others.most_common())
        remarks.append(f"images of classes that {scheme} lacks are left out: {listed}")
    return [item for item in labelled if item.label in names], remarks


def _way(
    dataset: Dataset, items: Sequence[Item], held_out: str, one_split: bool
) -> tuple[str, list[Item]]:
    """How images are held out, and those that are used."""
    reserved = () if one_split else _RESERVED
    splits = Counter(item.split for item in items if item.split in reserved)
    others = [item for item in items if item.split not in reserved]
    persons = {item.person for item in others if item.person}
    named = 2 * sum(item.person is not None for item in others) > len(others) and len(persons) > 1
    by = held_out
    if held_out == "auto":
        by = "val" if splits["val"] and others else "persons" if named else "images"
    if by in _RESERVED and not splits[by]:
        has = ", ".join(sorted(str(split) for split in splits)) or "neither val nor test"
        raise UserError(
            f"{_where(dataset)} has no labelled images of the split {by} (it has {has}); choose "
            'another `held_out`, such as `held_out="images"`.'
        )
    if by == "persons" and not named:
        raise UserError(
            f"{_where(dataset)} does not name two or more persons; add a column person to its "
            'table, or choose `held_out="images"`.'
        )
    if items and not others:
        raise UserError(
            f"{_where(dataset)} has images of the splits {' and '.join(sorted(map(str, splits)))} "
            "alone; choose the one to train on with `split`."
        )
    return by, [item for item in items if item.split not in reserved or item.split == by]


def _held_out(
    items: Sequence[Item], digests: Sequence[str], classes: np.ndarray, by: str
) -> tuple[list[str], np.ndarray]:
    """What each image is held out with, and which of them are, bool [n]."""
    persons = [item.person if by == "persons" else None for item in items]
    groups = [one or digest for one, digest in zip(persons, digests, strict=True)]
    if by in _RESERVED:
        return groups, np.array([item.split == by for item in items])
    return groups, hold_out(classes, groups)


def _looked_at(
    dataset: Dataset,
    items: Sequence[Item],
    reads: _Reads,
    size: tuple[int, int],
    aligner: Aligner | None,
    work: Path,
    stage: Stage,
) -> tuple[list[str], np.ndarray | None]:
    """SHA-256 of each image's pixels, as `reads` makes them, an empty text where it cannot.

    They are kept in `work`. With an `aligner` the pixels are kept and returned, too, since faces
    take long to find: uint8 [n, H, W, 3].
    """
    (height, width), keeps = size, aligner is not None
    how = () if aligner is None else (aligner.settings(),)

    def make(numbers: np.ndarray) -> dict[str, np.ndarray]:
        images = list(pool.map(reads, [items[i] for i in numbers]))
        nothing = np.zeros((height, width, 3), np.uint8)
        pixels = [nothing if isinstance(image, str) else _bytes(image) for image in images]
        digests = [
            np.zeros(32, np.uint8)
            if isinstance(image, str)
            else np.frombuffer(hashlib.sha256(own.tobytes()).digest(), np.uint8)
            for image, own in zip(images, pixels, strict=True)
        ]
        found = {"digests": np.stack(digests)}
        return found | {"pixels": np.stack(pixels)} if keeps else found

    facts = hashlib.sha256("\n".join(item.name for item in items).encode()).hexdigest()
    folder = work / f"pixels-{cache.key(dataset.digest, facts, size, *how)}"
    if not items:
        return [], None
    if keeps:
        row, what = 3 * height * width, f"{len(items)} aligned images"
        cache.check_room(folder, len(items), cache.done(folder), row, what)
    with ThreadPoolExecutor(_READERS, "read") as pool:
        found = cache.rows(folder, len(items), make, _AT_ONCE, "reading images", stage)
    digests = [row.tobytes().hex() if row.any() else "" for row in found["digests"]]
    return digests, found.get("pixels")


def _unusable(items: Sequence[Item], digests: Sequence[str], reads: _Reads) -> list[str]:
    """A sentence on the images without a digest, if there are any."""
    unusable = [item for item, digest in zip(items, digests, strict=True) if not digest]
    if not unusable:
        return []
    first = f"{unusable[0].name}: {reads(unusable[0])}"
    return [f"{_images(len(unusable))} cannot be used: {first}"]


def _bytes(image: np.ndarray) -> np.ndarray:
    """A float image [3, H, W] in [0, 1] as uint8 [H, W, 3]."""
    return np.rint(255 * image).astype(np.uint8).transpose(1, 2, 0)


def _reader(items: Sequence[Item], reads: _Reads) -> Images:
    def one(item: Item) -> np.ndarray:
        image = reads(item)
        if isinstance(image, str):  # it could be read before
            raise UserError(f"{item.name} has changed: {image} Correct that and run again.")
        return _bytes(image)

    def images(numbers: np.ndarray) -> np.ndarray:
        with ThreadPoolExecutor(_READERS, "read") as pool:
            return np.stack(list(pool.map(one, [items[i] for i in numbers])))

    return images


def _kept(pixels: np.ndarray, rows: np.ndarray) -> Images:
    def images(numbers: np.ndarray) -> np.ndarray:
        return np.asarray(pixels[rows[numbers]])

    return images


def _check(
    where: str, classes: np.ndarray, train: np.ndarray, held: np.ndarray, names: Sequence[str]
) -> None:
    """Raise UserError unless each class has images enough in both parts."""
    to_train, to_measure = (
        np.bincount(classes[part], minlength=len(names)) for part in (train, held)
    )
    enough = (to_train >= FEWEST) & (to_measure > 0)
    present = [name for name, count in zip(names, to_train + to_measure, strict=True) if count]
    if len(present) == 1:
        raise UserError(
            f"{where} has images of one class alone, {present[0]}; give a dataset with two or more."
        )
    if enough.all():
        return
    few = ", ".join(
        f"{name} {a} and {b}"
        for name, a, b, fine in zip(names, to_train, to_measure, enough, strict=True)
        if not fine
    )
    left = [name for name, fine in zip(names, enough, strict=True) if fine]
    rest = label_schemes.listed(left)
    remedy = f", or leave classes out with `classes={rest!r}`" if len(left) > 1 else ""
    raise UserError(
        f"{where} has too few images of some classes, to train on and held out: {few}; give "
        f"{FEWEST} and 1 or more{remedy}."
    )
