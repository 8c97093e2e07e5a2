"""The originals of an augmentation: the images of a dataset that have a label and can be read."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

from synfer_rt.data.datasets import Dataset, Item, Skipped
from synfer_rt.data.datasets.items import load
from synfer_rt.data.images import size_of
from synfer_rt.errors import UserError
from synfer_rt.faces.alignment import Aligner

_READERS = 4
_LOOKED_AT = 16
"""Originals whose size is compared with the additions'."""


def usable(dataset: Dataset, size: tuple[int, int], aligner: Aligner | None = None) -> Dataset:
    """The dataset without the images that have no label or cannot be decoded to `size`, (H, W).

    With an `aligner`, images without a face are left out, too. Those left out are among its
    `skipped`. Raises UserError when nothing is left, and for a dataset with several splits, or with
    one and labelled images outside it: adding to a test set would make its score meaningless.
    """
    refuse_splits(dataset, "augment")

    def problem(item: Item) -> str | None:
        if item.label is None:
            return item.problem or "it has no label"
        image = load(item, size, aligner)
        return image if isinstance(image, str) else None

    with ThreadPoolExecutor(_READERS, "read") as pool:
        problems = list(pool.map(problem, dataset.items))
    good = [item for item, why in zip(dataset.items, problems, strict=True) if why is None]
    bad = [Skipped(i.name, why) for i, why in zip(dataset.items, problems, strict=True) if why]
    if not good:
        raise UserError(
            f"{dataset.path} has no labelled image that can be read ({bad[0].name}: "
            f"{bad[0].reason}); see `input_format` and `label_scheme`."
        )
    return replace(dataset, items=tuple(good), skipped=(*dataset.skipped, *bad))


def refuse_splits(dataset: Dataset, use: str) -> None:
    """Raise UserError if a part of a dataset may be a test set; `use` says what it is for."""
    splits = sorted({item.split for item in dataset.items if item.split})
    loose = [item.name for item in dataset.items if not item.split and item.label is not None]
    if len(splits) > 1 or (splits and loose):
        beside = f", and images of none ({loose[0]})" if loose else ""
        raise UserError(
            f"{dataset.path} has the splits {', '.join(splits)}{beside}; choose the one to "
            f"{use} with `split`."
        )


def some_differ(items: Sequence[Item], size: tuple[int, int]) -> bool:
    """Whether one of a few images, from first to last, is not of the size (H, W)."""
    some = items[:: -(-len(items) // _LOOKED_AT)]
    try:
        return any(size_of(item.read()) != size for item in some)
    except (OSError, ValueError, UserError):  # gone since it was read: the run will say so
        return False
