"""Datasets of image files whose folders say what the images show."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from synfer_rt.data.datasets.class_folders import ClassFolders
from synfer_rt.data.datasets.items import IMAGES, UNLABELLED, Found, Skipped, item
from synfer_rt.data.writers.run_file import OLD_SHEET


def images(root: Path, files: Sequence[Path], _: str | None) -> Found:
    """Every file, without labels."""
    for file in files:
        yield item(root, file, UNLABELLED)


def class_folders(root: Path, files: Sequence[Path], label_scheme: str | None) -> ClassFolders:
    """What the folders of files below `root` say."""
    return ClassFolders((file.relative_to(root).as_posix() for file in files), label_scheme)


def folders(root: Path, files: Sequence[Path], label_scheme: str | None) -> Found:
    """A folder for each class, at any depth. Raises UserError for one that seems misspelt."""
    classes = class_folders(root, files, label_scheme)
    images = [file for file in files if file.suffix.lower() in IMAGES]
    classes.check_spelling(file.relative_to(root).as_posix() for file in images)
    for file in files:
        name = file.relative_to(root).as_posix()
        label = classes.label(name)
        if label.name is not None or file.suffix.lower() in IMAGES:
            yield item(root, file, label)
        else:
            yield Skipped(name, label.problem or "")


def loose_images(root: Path, files: Sequence[Path], beside: str) -> Found:
    """Images that lie beside archives, whose formats read those alone."""
    for file in files:
        if file.suffix.lower() in IMAGES and file.name != OLD_SHEET:
            name = file.relative_to(root).as_posix()
            yield Skipped(name, f"it lies beside {beside}, which alone are read")
