"""Datasets of image files: class folders, tables, and the layouts of RAF-DB and AffectNet."""

from __future__ import annotations

import csv
import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath
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
    """The tables that name images, and their columns of image and label, in lower case."""
    found = ((file, _columns(file)) for file in files if file.suffix.lower() in TABLES)
    return {file: columns for file, columns in found if columns}


def _columns(file: Path) -> tuple[str, str | None] | None:
    """The columns of a table that name the image and the label; None when it names no images."""
    known = {name for row in _rows(file) for name in row}
    of_file = next((name for name in _FILE_COLUMNS if name in known), None)
    of_label = next((name for name in _LABEL_COLUMNS if name in known), None)
    return (of_file, of_label) if of_file else None


def _rows(file: Path) -> Iterator[Mapping[str, Any]]:
    """The rows of a table by its columns, whose names are in lower case and without spaces."""
    try:
        with file.open(encoding="utf-8-sig", newline="") as stream:
            rows: Iterable[Any] = csv.DictReader(stream)
            if file.suffix.lower() == ".jsonl":
                rows = map(json.loads, filter(str.strip, stream))
            for row in rows:
                cells = row.items() if isinstance(row, dict) else ()
                # A name of None stands for cells beyond the last column.
                yield {name.strip().lower(): cell for name, cell in cells if name is not None}
    except (OSError, ValueError, RecursionError, csv.Error) as error:
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
        """By its path from `folder` or from the root, else by its bare name where that is unique.

        The folders of such a name must be those that the file lies in: elsewhere the same name is
        another image's.
        """
        path = PurePosixPath(name.replace("\\", "/"))
        if folder is not None and folder != self._root:
            near = self._paths.get((folder.relative_to(self._root) / path).as_posix())
            if near is not None:
                return near
        if path.as_posix() in self._paths:
            return self._paths[path.as_posix()]
        file = self._names.get(path.name)
        return file if file is None or self._agree(path.parent, file.parent) else None

    def _agree(self, named: PurePosixPath, found: Path) -> bool:
        """Whether one of two folders is the end of the other, as far as each is known."""
        whole = PurePosixPath(found.absolute().as_posix()).parts
        inside, parts = found.relative_to(self._root).parts, named.parts
        if whole[len(whole) - len(parts) :] == parts:
            return True
        # The table may come from a disk where the dataset lay elsewhere.
        return bool(inside) and parts[len(parts) - len(inside) :] == inside


_Row = tuple[str, Path, Path | None, Label, str | None]
"""What a list says of an image: its name there, the list, the image's file, label and split."""


def _listed(root: Path, rows: Iterable[_Row], label_scheme: str | None) -> Found:
    """Each image of the rows once, with the first label that is given, else its folder's."""
    given: dict[Path, tuple[Label, str | None]] = {}
    for name, listing, file, label, split in rows:
        if file is None:
            yield Skipped(name, f"{listing.name} lists it, but it is not there")
            continue
        first, _ = given.setdefault(file, (label, split))
        if first == UNLABELLED:
            given[file] = label, split
        elif label not in (first, UNLABELLED):
            one, other = (word or "no known expression" for word, _ in (first, label))
            yield Skipped(name, f"{listing.name} lists it again, as {other}; it counts as {one}")
    for file, (label, split) in given.items():
        if label == UNLABELLED:
            label = class_folder(root, file, label_scheme), None
        yield item(root, file, label, split)


def table(root: Path, files: Sequence[Path], label_scheme: str | None) -> Found:
    """CSV and JSON-lines files with a column of image names, such as ImageFolder's metadata.

    An image that no label is given of has that of its folder, if any. A table that is given alone
    names its images among all that lies beside it.
    """
    columns = tables(files)
    candidates = [file for file in files if file not in columns]
    # Of what lies beside a table that is given alone, only what it names is the input.
    lookup = _Lookup(root, candidates or find_images(root, strict=False))
    rows: list[_Row] = []
    for listing, (of_file, of_label) in columns.items():
        for row in _rows(listing):
            name = str(row.get(of_file) or "")
            file = lookup.find(name, listing.parent) or lookup.find(name.strip(), listing.parent)
            value = row.get(of_label) if of_label else None
            label = UNLABELLED
            if value is not None and str(value).strip():
                label = label_of(value, row.get("label_scheme") or label_scheme)
            rows.append(
                (name, listing, file, label, split_of(str(row.get("split") or listing.stem)))
            )
    yield from _listed(root, rows, label_scheme)
    used = {file for _, _, file, _, _ in rows}
    for file in candidates:
        if file not in used and file.suffix.lower() in IMAGES and file.name != CONTACT_SHEET:
            yield Skipped(file.relative_to(root).as_posix(), "no table lists it")


def raf_db(root: Path, files: Sequence[Path], label_scheme: str | None) -> Found:
    """RAF-DB: a list of `train_00001.jpg 5`, and that image aligned, else as it is."""
    scheme = label_scheme or "raf-db"
    lookup = _Lookup(root, files)
    rows: list[_Row] = []
    for listing in (file for file in files if file.name.lower() in RAF_LISTS):
        try:
            text = listing.read_text("utf-8-sig", "replace")
        except OSError as error:
            raise UserError(f"{listing} cannot be read ({error.strerror}); mend it.") from None
        for line in filter(str.strip, text.splitlines()):
            name, _, number = line.strip().partition(" ")
            stem = name.rpartition(".")[0] or name
            image = lookup.find(f"{stem}_aligned") or lookup.find(name)
            rows.append((name, listing, image, label_of(number, scheme), split_of(name)))
    yield from _listed(root, rows, scheme)


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
            with annotation.open("rb") as file_of_label:
                value = np.lib.format.read_array(file_of_label, allow_pickle=False).item()
        except Exception as error:  # what a damaged header says, numpy may believe
            yield item(root, file, (None, f"{annotation.name} cannot be read ({error})"), None)
        else:
            yield item(root, file, label_of(value, scheme), None)
