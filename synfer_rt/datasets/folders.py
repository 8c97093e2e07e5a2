"""Datasets of image files whose folders say what the images show."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from synfer_rt.datasets.items import (
    IMAGES,
    UNLABELLED,
    Found,
    Skipped,
    item,
    label_of,
)


def images(root: Path, files: Sequence[Path], _: str | None) -> Found:
    """Every file, without labels."""
    for file in files:
        yield item(root, file, UNLABELLED)


def class_folder(root: Path, file: Path, label_scheme: str | None) -> str | None:
    """The label of the nearest folder that has the name (or number) of a class."""
    for part in reversed(file.relative_to(root).parts[:-1]):
        label, _ = label_of(part, label_scheme)
        if label is not None:
            return label
    return None


def folders(root: Path, files: Sequence[Path], label_scheme: str | None) -> Found:
    """A folder for each class, at any depth."""
    for file in files:
        label = class_folder(root, file, label_scheme)
        if label is not None:
            yield item(root, file, (label, None))
        elif file.suffix.lower() in IMAGES:
            yield item(root, file, (None, "it is in no folder of a class"))
        else:
            yield Skipped(file.relative_to(root).as_posix(), "it is in no folder of a class")
