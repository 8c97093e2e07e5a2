"""An image of a dataset, and the usual ways to write what it shows."""

from __future__ import annotations

import re
import reprlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from synfer_rt.data.datasets.splits import split_of_path
from synfer_rt.data.images import in_utf8, read_image
from synfer_rt.errors import UserError
from synfer_rt.vocabulary import label_schemes

IMAGES = frozenset((".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff"))
"""Suffixes of files that nobody would list in a table for anything but an image."""


class Label(NamedTuple):
    """What a dataset says of an image, as far as it is understood.

    `name` is canonical; without one `problem` says why, or is None where no label was looked for.
    `written` is the label as the dataset has it, empty where that cannot be read and None where it
    has none, and `scheme` the one that gave a number its meaning.
    """

    name: str | None = None
    problem: str | None = None
    written: str | None = None
    scheme: str | None = None

    @property
    def without_scheme(self) -> bool:
        """Whether it is a number of which nobody says the meaning."""
        return self.scheme is None and bool(self.written and _NUMBER.fullmatch(self.written))


UNLABELLED = Label()


@dataclass(frozen=True)
class Item:
    """An image of a dataset: its name there (in UTF-8), its label by canonical name, its bytes.

    `label`, `problem`, `written` and `scheme` are the fields of its Label. `split` is train, val or
    test where the layout says so, or another word of a table's column of splits. `file` is the one
    that holds its bytes.
    """

    name: str
    label: str | None
    problem: str | None
    written: str | None
    scheme: str | None
    split: str | None
    file: Path = field(repr=False, compare=False)
    read: Callable[[], bytes] = field(repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "name", in_utf8(self.name))
        if self.written is not None:
            object.__setattr__(self, "written", in_utf8(self.written))
        if self.problem is not None:
            object.__setattr__(self, "problem", in_utf8(self.problem))

    @property
    def not_understood(self) -> bool:
        """Whether the dataset has a label of it, of which nobody knows the meaning."""
        return self.label is None and self.written is not None


@dataclass(frozen=True)
class Skipped:
    """Something that is not used, and why; both in UTF-8."""

    name: str
    reason: str

    def __post_init__(self) -> None:
        object.__setattr__(self, "name", in_utf8(self.name))
        object.__setattr__(self, "reason", in_utf8(self.reason))


def canonical(word: str) -> str | None:
    """The canonical name of an expression written in one of the usual ways, or None."""
    return label_schemes.expression(word)


def label_of(value: Any, label_scheme: Any) -> Label:
    """What a label says as a dataset has it, a word or a number.

    `label_scheme` may be what a dataset says, and so anything; None where nobody says. What stands
    for a missing value (None, NaN, nothing but spaces) is no label.
    """
    text = "" if value is None else str(value).strip()
    if text.lower() in ("", "nan"):
        return UNLABELLED
    if (name := canonical(text)) is not None:
        return Label(name, None, text)
    shown = reprlib.repr(text)  # whole, unless it is a text of its own
    if not _NUMBER.fullmatch(text):
        near = label_schemes.nearest_expression(text[:_LONGEST], _LIKE)
        also = f"; the nearest is {near}" if near else ""
        return Label(None, f"its label {shown} is no known expression{also}", text)
    if not float(text).is_integer():
        return Label(None, f"its label {shown} is no whole number", text)
    number = int(float(text))
    if label_scheme is None:
        why = f"its label is the number {number}; say its meaning with --label-scheme"
        return Label(None, why, text)
    try:
        classes = label_schemes.scheme(label_scheme)
    except UserError:
        return Label(None, f"its label scheme {reprlib.repr(label_scheme)} is unknown", text)
    return Label(*_numbered(number, classes, label_scheme), text, label_scheme)


_NUMBER = re.compile(r"[+-]?\d{1,9}(\.\d{0,9})?(e[+-]?\d{1,2})?", re.ASCII | re.IGNORECASE)
_LONGEST = 40
_LIKE = 0.7
"""From which likeness on, 0 to 1, a word is named as the nearest."""


def _numbered(
    number: int, classes: Sequence[str], label_scheme: str
) -> tuple[str | None, str | None]:
    index = number - label_schemes.FIRST.get(label_scheme, 0)
    meaning = label_schemes.NO_EXPRESSION.get(label_scheme, {}).get(number)
    if 0 <= index < len(classes):
        if label_schemes.names_expression(classes[index]):
            return classes[index], None
        meaning = classes[index].replace("-", "nothing")
    means = f": it means {meaning}" if meaning else ""
    return None, f"its label {number} is outside {label_scheme}{means}"


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
