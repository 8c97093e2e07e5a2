"""Datasets of image files: class folders, tables, and the layouts of RAF-DB and AffectNet."""

from __future__ import annotations

import csv
import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from synfer_rt.contact_sheet import FILE as CONTACT_SHEET
from synfer_rt.datasets.items import (
    IMAGES,
    UNLABELLED,
    Found,
    Label,
    Skipped,
    item,
    label_of,
    split_of,
)
from synfer_rt.errors import UserError
from synfer_rt.images import find_images

RAF_LISTS = ("list_patition_label.txt", "list_partition_label.txt")
"""The dataset's own spelling, and the usual correction."""
TABLES = (".csv", ".jsonl")

AFFECTNET_COLUMN = "subdirectory_filepath"
"""What AffectNet's CSV files call the image, in lower case; no other dataset's tables do."""

_FILE_COLUMNS = ("file_name", "filename", AFFECTNET_COLUMN, "path", "pth", "image", "file")
_LABEL_COLUMNS = ("label", "expression", "emotion", "class", "exp")


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


def tables(files: Iterable[Path]) -> dict[Path, tuple[str, str | None]]:
    """The tables that name images, and their columns of image and label."""
    found = ((file, _columns(file)) for file in files if file.suffix in TABLES)
    return {file: columns for file, columns in found if columns}


def _columns(file: Path) -> tuple[str, str | None] | None:
    """The columns of a table that name the image and the label; None when it names no images."""
    known = {name.lower(): name for row in _rows(file) for name in row if isinstance(name, str)}
    of_file = next((known[name] for name in _FILE_COLUMNS if name in known), None)
    of_label = next((known[name] for name in _LABEL_COLUMNS if name in known), None)
    return (of_file, of_label) if of_file else None


def _rows(file: Path) -> Iterator[Mapping[str, Any]]:
    try:
        with file.open(encoding="utf-8-sig", newline="") as stream:
            if file.suffix == ".csv":
                yield from csv.DictReader(stream)
            else:
                for line in filter(str.strip, stream):
                    row = json.loads(line)
                    yield row if isinstance(row, dict) else {}
    except (OSError, ValueError, csv.Error) as error:
        raise UserError(f"{file} is no table that can be read ({error}); mend it.") from None


class _Lookup:
    """Files of a dataset by what tables call them; nothing outside it can be found."""

    def __init__(self, root: Path, files: Iterable[Path]) -> None:
        self._root = root
        self._paths = {file.relative_to(root).as_posix(): file for file in files}
        names = [name for file in self._paths.values() for name in {file.name, file.stem}]
        counts = Counter(names)
        self._names = {
            name: file
            for file in self._paths.values()
            for name in (file.stem, file.name)
            if counts[name] == 1
        }

    def find(self, name: str, folder: Path | None = None) -> Path | None:
        """By its path from `folder` or from the root, else by its name where that is unique."""
        name = name.replace("\\", "/")
        if folder is not None and folder != self._root:
            near = self._paths.get(f"{folder.relative_to(self._root).as_posix()}/{name}")
            if near is not None:
                return near
        return self._paths.get(name) or self._names.get(name.rpartition("/")[2])


def table(root: Path, files: Sequence[Path], label_scheme: str | None) -> Found:
    """CSV and JSON-lines files with a column of image names, such as ImageFolder's metadata.

    An image that no label is given of has that of its folder, if any. A table that is given alone
    names its images among all that lies beside it.
    """
    columns = tables(files)
    candidates = [file for file in files if file not in columns]
    lookup, used = _Lookup(root, candidates or find_images(root)), set()
    for listing, (of_file, of_label) in columns.items():
        for row in _rows(listing):
            name = str(row.get(of_file) or "")
            file = lookup.find(name, listing.parent)
            if file is None:
                yield Skipped(name, f"{listing.name} lists it, but it is not there")
            elif file not in used:
                used.add(file)
                value = row.get(of_label) if of_label else None
                scheme = row.get("label_scheme") or label_scheme
                known: Label = (class_folder(root, file, label_scheme), None)
                if value not in (None, ""):
                    known = label_of(value, scheme)
                yield item(root, file, known, split_of(str(row.get("split") or listing.stem)))
    for file in candidates:
        if file not in used and file.suffix.lower() in IMAGES and file.name != CONTACT_SHEET:
            yield Skipped(file.relative_to(root).as_posix(), "no table lists it")


def raf_db(root: Path, files: Sequence[Path], label_scheme: str | None) -> Found:
    """RAF-DB: a list of `train_00001.jpg 5`, and that image aligned, else as it is."""
    lookup = _Lookup(root, files)
    for file in (file for file in files if file.name in RAF_LISTS):
        for line in filter(str.strip, file.read_text("utf-8", "replace").splitlines()):
            name, _, number = line.strip().partition(" ")
            stem = name.rpartition(".")[0] or name
            image = lookup.find(f"{stem}_aligned") or lookup.find(name)
            if image is None:
                yield Skipped(name, f"{file.name} lists it, but it is not there")
            else:
                yield item(root, image, label_of(number, label_scheme or "raf-db"), split_of(name))


def affectnet(root: Path, files: Sequence[Path], label_scheme: str | None) -> Found:
    """AffectNet: `annotations/N_exp.npy` beside `images/N.jpg`, or its CSV files."""
    scheme = label_scheme or "affectnet-8"
    if not any(file.name.endswith("_exp.npy") for file in files):
        yield from table(root, files, scheme)
        return
    present = set(files)
    for file in files:
        if file.suffix.lower() not in IMAGES:
            continue
        annotation = file.parent.parent / "annotations" / f"{file.stem}_exp.npy"
        if annotation not in present:
            yield item(root, file, (None, f"it has no {annotation.name}"), None)
            continue
        try:
            value = np.load(annotation, allow_pickle=False).item()
        except (OSError, ValueError, EOFError) as error:
            yield item(root, file, (None, f"{annotation.name} cannot be read ({error})"), None)
        else:
            yield item(root, file, label_of(value, scheme), None)
