"""Labelled image datasets that exist, whatever their layout: where each image is and what it shows.

Reading a dataset lists it: no image is decoded, nothing is unpacked. Archives are read in place, by
position, so the names in them are labels for reports and never paths. What cannot be used is listed
too, with the reason.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from synfer_rt.data.datasets.class_lists import class_list
from synfer_rt.data.datasets.items import IMAGES, Item, Skipped
from synfer_rt.data.datasets.kinds import FORMATS, READERS, WITH_SCHEME, format_of, not_read
from synfer_rt.data.datasets.numbering import check_numbers
from synfer_rt.data.datasets.unfinished import refuse_growing, refuse_unfinished
from synfer_rt.data.images import find_images, folders_of_images
from synfer_rt.data.label_table import SUFFIXES as TABLES
from synfer_rt.data.label_table import settings_file
from synfer_rt.errors import UserError
from synfer_rt.paths import is_folder, local, resolved
from synfer_rt.vocabulary import label_schemes

__all__ = [
    "FORMATS",
    "Dataset",
    "Item",
    "Skipped",
    "read_dataset",
    "read_datasets",
    "refuse_inside",
]


@dataclass(frozen=True)
class Dataset:
    """The images of a dataset, in a fixed order, and what of it is left out."""

    path: Path
    format: str
    items: tuple[Item, ...]
    skipped: tuple[Skipped, ...] = ()

    @property
    def root(self) -> Path:
        """The folder that names begin at."""
        return self.path if is_folder(self.path) else self.path.parent

    def counts(self) -> dict[str, int]:
        """The number of images by label, of those that have one."""
        return dict(Counter(item.label for item in self.items if item.label is not None))

    @property
    def digest(self) -> str:
        """SHA-256 of names, labels and files in their order: whether all of it is still the same.

        Of a file its size and its time of change count, so that nothing need be read.
        """
        stamps = {file: _stamp(file) for file in {item.file for item in self.items}}
        listed: list[list[Any]] = [
            [item.name, item.label, item.written, *stamps[item.file]] for item in self.items
        ]
        listed += [[entry.name, entry.reason] for entry in self.skipped]
        return hashlib.sha256(json.dumps(listed).encode()).hexdigest()


def read_dataset(
    path: str | Path,
    format: str = "auto",
    label_scheme: str | None = None,
    split: str | None = None,
) -> Dataset:
    """List the dataset at `path`, a directory or a file. A table stands for what it names.

    Tables in a directory that `synfer-rt label` wrote are left out: its votes would count as the
    dataset's word.

    `format` is a key of FORMATS, or "auto" to see which it is. `label_scheme` gives numbers their
    meaning where the dataset does not: see labels.scheme; labels.FIRST says which count from 1. A
    list of classes in the dataset (class_lists.py) does so too.
    `split` keeps only that part.

    Raises UserError for a path that is not there, an unknown format, scheme or split, an output of
    synfer-rt that is not finished, numbers that begin elsewhere than those of their scheme, a class
    folder whose name is misspelt, and a dataset of which nothing can be used.
    """
    path = local(path)
    if format != "auto" and format not in FORMATS:
        raise UserError(f"Unknown format {format!r}; known are auto, {', '.join(FORMATS)}.")
    if label_scheme is not None:
        label_schemes.scheme(label_scheme)
    refuse_growing(path)
    root, files, aside = path.parent, find_images(path), {}
    if is_folder(path):
        root, aside = path, _set_aside(files)
        settings = {settings_file(file) for file in aside}
        files = [file for file in files if file not in aside and file not in settings]
    refuse_unfinished(path, files)
    scheme, listing = label_scheme, class_list(root, files) if label_scheme is None else None
    if listing is not None:
        files = [file for file in files if file != listing[0]]
        scheme = listing[1]
    format = format_of(root, files, scheme) if format == "auto" else format
    own_layout = format in WITH_SCHEME and label_scheme is None
    unread = not_read(files, format)
    aside |= unread
    files = [file for file in files if file not in aside]
    if format == "images" and unread and not any(file.suffix.lower() in IMAGES for file in files):
        files = []  # what lies beside an unread file of images, such as a licence, is none
    items: list[Item] = []
    skipped: list[Skipped] = []
    for found in READERS[format](root, files, None if own_layout else scheme):
        (items if isinstance(found, Item) else skipped).append(found)  # type: ignore[arg-type]
    items = check_numbers(items, own_layout)
    skipped += [Skipped(file.relative_to(root).as_posix(), why) for file, why in aside.items()]
    if split is not None:
        items = _of_split(items, split, path)
    if not items:
        why = f" ({skipped[0].name}: {skipped[0].reason})" if skipped else ""
        raise UserError(f"{path} holds no image that can be used as {format}{why}; see --format.")
    return Dataset(path, format, tuple(items), tuple(skipped))


def _of_split(items: Sequence[Item], split: str, path: Path) -> list[Item]:
    splits = sorted({item.split for item in items if item.split})
    if split not in splits:
        known = f"it has {', '.join(splits)}" if splits else "it has none; leave out --split"
        raise UserError(f"{path} has no split {split!r}; {known}.")
    return [item for item in items if item.split == split]


def read_datasets(
    paths: Sequence[Path], format: str, label_scheme: str | None, split: str | None
) -> Dataset:
    """Several datasets or images as one; names are then the whole paths. See read_dataset."""
    parts = [read_dataset(path, format, label_scheme, split) for path in paths]
    if len(parts) == 1:
        return parts[0]

    def renamed(part: Dataset, entries: Iterable[Any]) -> list[Any]:
        return [replace(entry, name=(part.root / entry.name).as_posix()) for entry in entries]

    items = [item for part in parts for item in renamed(part, part.items)]
    skipped = [entry for part in parts for entry in renamed(part, part.skipped)]
    formats = "+".join(sorted({part.format for part in parts}))
    return Dataset(Path("."), formats, tuple(items), tuple(skipped))


def refuse_inside(out: Path, inputs: Sequence[Path]) -> None:
    """Raise UserError when `out` would lie in one of the inputs: they are only ever read.

    A folder that an input links to is part of it. `out` may lie beside a table: of the folder only
    what the table names is the input. Also raises UserError for a path that cannot be looked at.
    """
    around = {resolved(out), *resolved(out).parents}
    for path in inputs:
        if is_folder(path) and not around.isdisjoint(folders_of_images(path)):
            raise UserError(
                f"{out} lies inside the input {path} or a folder that it links to; choose another "
                "--out."
            )


def _stamp(file: Path) -> tuple[int, ...]:
    try:
        found = file.stat()
    except OSError:
        return ()
    return found.st_size, found.st_mtime_ns


def _set_aside(files: Sequence[Path]) -> dict[Path, str]:
    """What stands in the list of a folder and is no file of a dataset, and why."""
    present = set(files)
    aside = {file: _closed(file) for file in files if os.path.isdir(file)}
    for file in files:
        if file.suffix in TABLES and settings_file(file) in present:
            aside[file] = "synfer-rt label wrote it; give the table itself to use its labels"
    return aside


def _closed(folder: Path) -> str:
    try:
        os.scandir(folder).close()
    except OSError as error:
        return f"it cannot be listed ({error.strerror}); mend its permissions"
    return "it links to a folder that has another name here, or lies around it all"
