"""The images and the table of `label`, from the arguments that say where they are."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import cast

import numpy as np

from synfer_rt.data.datasets import Dataset, read_datasets, refuse_inside
from synfer_rt.errors import UserError
from synfer_rt.jobs.label import check_labels
from synfer_rt.jobs.reading_settings import ReadingSettings
from synfer_rt.paths import Location, is_folder, local

TABLE = "labels.jsonl"
"""The name of the table that `label` writes into a directory."""


def table_in(out: Path) -> Path:
    """The file of the table `out`, which has a name of its own in a directory."""
    return out / TABLE if is_folder(out) or not out.suffix else out


def read_images(
    images: Location | Sequence[Location],
    written: Path | None,
    format: str,
    reading: ReadingSettings,
    target: str,
    argument: str = "images",
) -> Dataset:
    """The images, with labels of the scheme `target` if the arguments ask for them.

    `argument` is the one that gave `images`.

    Raises UserError if the file `written` would lie among them, and for labels that are asked for
    and not understood.
    """
    paths = [local(path, argument) for path in _several(images, argument)]
    if not paths:
        raise UserError(f"`{argument}` must name at least one file or directory, got none.")
    if written is not None:
        refuse_inside(written, paths)
    label_scheme = reading.get("label_scheme")
    dataset = read_datasets(paths, format, label_scheme, reading.get("split"), target)
    if label_scheme is not None or format not in ("auto", "images"):
        check_labels(dataset, " and ".join(map(str, paths)))
    return dataset


def _several(images: object, argument: str) -> Iterable[object]:
    """`images` as paths, of which one may stand alone. Raises UserError for what is no iterable."""
    if isinstance(images, str | PathLike):
        return [cast(object, images)]
    one = isinstance(images, bytes | Mapping) or (
        isinstance(images, np.ndarray) and not images.ndim
    )
    if one or not isinstance(images, Iterable):
        raise UserError(f"`{argument}` must be a path or a list of paths, got {images!r}.")
    return cast("Iterable[object]", images)
