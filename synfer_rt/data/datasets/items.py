"""The images of a dataset, and its parts that are not used."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

import numpy as np

from synfer_rt.data.datasets.labels.label import Label
from synfer_rt.data.images import centred, in_utf8, read_image
from synfer_rt.errors import UserError
from synfer_rt.faces.alignment import Aligner
from synfer_rt.faces.boxes import Box

IMAGES = frozenset((".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff"))
"""Suffixes that only image files have."""


Read = Callable[[], bytes]
"""Returns the bytes of an image or text. Raises OSError if it cannot."""


@dataclass(frozen=True)
class Within:
    """The image file that `read` returns, and the box in it that holds an item's face."""

    read: Read
    box: Box


@dataclass(frozen=True)
class Description:
    """What a dataset says of an image besides its label.

    `caption` is a text about it, None without one. `aus` are intensities in [0, 1] by the names of
    action units, None if nothing says any, or what is wrong with them.
    """

    caption: str | None = None
    aus: Mapping[str, float] | str | None = None

    def filled_by(self, other: Description) -> Description:
        """The same with what only `other` says."""
        return Description(self.caption or other.caption, self.aus or other.aus)


UNDESCRIBED = Description()


@dataclass(frozen=True)
class Item:
    """One image of a dataset.

    `name` is its name in the dataset, in UTF-8. `label`, `problem`, `written` and `scheme` are the
    fields of its Label. `split` is train, val or test, another word from a table's column of
    splits, or None. `file` holds its bytes, which `read` returns. `person` is who it shows, in the
    dataset's own words, None if it does not say. `description` is only read if it is asked for.
    `within` is the image of which it is a part, None for a whole one.
    """

    name: str
    label: str | None
    problem: str | None
    written: str | None
    scheme: str | None
    split: str | None
    file: Path = field(repr=False, compare=False)
    read: Read = field(repr=False, compare=False)
    person: str | None = None
    description: Description = field(default=UNDESCRIBED, repr=False, compare=False)
    within: Within | None = field(default=None, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "name", in_utf8(self.name))
        if self.written is not None:
            object.__setattr__(self, "written", in_utf8(self.written))
        if self.problem is not None:
            object.__setattr__(self, "problem", in_utf8(self.problem))

    @property
    def not_understood(self) -> bool:
        """Whether the dataset has a label for it that is not understood."""
        return self.label is None and self.written is not None

    def labelled(self, label: Label) -> Item:
        """The same image with another label."""
        name, problem, written, scheme = label
        return replace(self, label=name, problem=problem, written=written, scheme=scheme)


@dataclass(frozen=True)
class Skipped:
    """Something in a dataset that is not used, and the reason; both in UTF-8."""

    name: str
    reason: str

    def __post_init__(self) -> None:
        object.__setattr__(self, "name", in_utf8(self.name))
        object.__setattr__(self, "reason", in_utf8(self.reason))


Found = Iterator[Item | Skipped]
"""What reading a dataset yields, in a fixed order."""


def name_below(root: Path, file: Path) -> str:
    """The name of a file of the dataset at `root`: its path from there, with `/`."""
    prefix, path = f"{root}{os.sep}", str(file)
    if path.startswith(prefix):  # relative_to says the same, at many times the cost
        return path[len(prefix) :].replace(os.sep, "/")
    return file.relative_to(root).as_posix()


def load(item: Item, size: tuple[int, int], aligner: Aligner | None = None) -> np.ndarray | str:
    """The image as float32 [3, H, W] in [0, 1] for `size` (H, W), or why it cannot be read.

    With an `aligner` it is the aligned face.
    """
    try:
        return picture(item, size, aligner)
    except UserError as error:
        # Pillow names bytes in memory by their address, which differs every time.
        return re.sub(r" ?<_io\.BytesIO[^>]*>", "", str(error))
    except OSError as error:
        return f"It cannot be read ({str(error.strerror or error).strip()})."


def picture(item: Item, size: tuple[int, int], aligner: Aligner | None = None) -> np.ndarray:
    """The image of `load`. Raises OSError and UserError where it cannot be read."""
    if aligner is None or item.within is None:
        return read_image(item.read(), size, aligner or centred)
    return read_image(item.within.read(), size, partial(aligner, box=item.within.box))


@contextmanager
def still_there(item: Item) -> Generator[None]:
    """Raise UserError if the block cannot read an original: all could be read before the run."""
    try:
        yield
    except (OSError, ValueError, UserError) as error:
        reason = str(getattr(error, "strerror", None) or error).rstrip(".")
        raise UserError(
            f"{item.name} has changed or gone since the run began ({reason}); restore it, then "
            "continue with `resume=True`."
        ) from None
