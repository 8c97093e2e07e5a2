"""An image of a dataset, and the usual ways to write what it shows."""

from __future__ import annotations

import re
import reprlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from synfer_rt import labels
from synfer_rt.datasets.splits import split_of_path
from synfer_rt.errors import UserError
from synfer_rt.images import in_utf8, read_image

IMAGES = frozenset((".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff"))
"""Suffixes of files that nobody would list in a table for anything but an image."""
Label = tuple[str | None, str | None]
"""A canonical name and None, or None and the reason; both None where no label was looked for."""
UNLABELLED: Label = (None, None)


@dataclass(frozen=True)
class Item:
    """An image of a dataset: its name there (in UTF-8), its label by canonical name, its bytes.

    Without a label, `problem` says why, or is None where labels were not looked for. `split` is
    train, val or test where the layout says so. `file` is the one that holds its bytes.
    """

    name: str
    label: str | None
    problem: str | None
    split: str | None
    file: Path = field(repr=False, compare=False)
    read: Callable[[], bytes] = field(repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "name", in_utf8(self.name))


@dataclass(frozen=True)
class Skipped:
    """Something that is not used, and why; both in UTF-8."""

    name: str
    reason: str

    def __post_init__(self) -> None:
        object.__setattr__(self, "name", in_utf8(self.name))
        object.__setattr__(self, "reason", in_utf8(self.reason))


@lru_cache(maxsize=4096)
def canonical(word: str) -> str | None:
    """The canonical name of an expression written in one of the usual ways, or None."""
    try:
        (name,) = labels.parse_labels(word, labels.scheme("affectnet-8"))
    except (UserError, ValueError):
        return None
    return name


def label_of(value: Any, label_scheme: Any) -> Label:
    """A label as a dataset has it, a word or a number, as (canonical name, None) or (None, why).

    `label_scheme` may be what a dataset says, and so anything; None where nobody says.
    """
    text = str(value).strip()
    number = text.removesuffix(".0")
    if not re.fullmatch(r"-?\d{1,9}", number, re.ASCII):
        name = canonical(text)
        shown = reprlib.repr(text)  # whole, unless it is a text of its own
        return (name, None) if name else (None, f"its label {shown} is no known expression")
    if label_scheme is None:
        return None, f"its label is the number {number}; say its meaning with --label-scheme"
    if not isinstance(label_scheme, str) or label_scheme not in labels.SCHEMES:
        return None, f"its label scheme {label_scheme!r} is unknown"
    classes = labels.scheme(label_scheme)
    index = int(number) - (label_scheme == "raf-db")
    if 0 <= index < len(classes):
        return classes[index], None
    return None, f"its label {number} is outside {label_scheme}"


def load(item: Item, size: tuple[int, int]) -> np.ndarray | str:
    """The image as float32 [3, H, W] in [0, 1] for `size` (H, W), or why it cannot be read."""
    try:
        return read_image(item.read(), size)
    except UserError as error:
        # Where pillow speaks of bytes in memory it gives their address, which differs every time.
        return re.sub(r" ?<_io\.BytesIO[^>]*>", "", str(error))
    except OSError as error:
        return f"It cannot be read ({str(error.strerror or error).strip()})."


Found = Iterator[Item | Skipped]


def item(root: Path, file: Path, label: Label, split: str | None = None) -> Item:
    """A file below `root`; the split is that of its folders where none is given."""
    name = file.relative_to(root).as_posix()
    return Item(name, *label, split or split_of_path(name), file, file.read_bytes)
