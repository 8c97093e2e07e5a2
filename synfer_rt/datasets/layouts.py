"""Datasets of image files: class folders, tables, and the layouts of RAF-DB and AffectNet."""

from __future__ import annotations

import csv
import json
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
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
    split_of_path,
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

    def __init__(self, root: Path, files: Sequence[Path]) -> None:
        self._root = root
        self._paths = {os.path.abspath(file): file for file in files}
        counts = Counter(name for file in files for name in {file.name, file.stem})
        self._names = {
            name: file for file in files for name in (file.stem, file.name) if counts[name] == 1
        }
        parents = {file.parent for file in files if file.suffix.lower() in IMAGES}
        self._folders = parents | {folder for parent in parents for folder in parent.parents}

    def find(self, rows: Sequence[tuple[str, Path]]) -> list[Path | None]:
        """What each row means: a name, and the folder of the table that has it.

        That is what lies at this path from the table's folder, or from the root. Where nothing
        does, the dataset may have lain elsewhere: then the file name counts, if one file has it, no
        row names another file so, and the folders of row and file agree as far as they are known.
        """
        exact = [self._at(name, folder) for name, folder in rows]
        paths = [_path(name) for name, _ in rows]
        places: dict[str, set[Path]] = {}
        for path, file in zip(paths, exact, strict=True):
            places.setdefault(path.name, set()).add(file or path)
        return [
            file or self._called(path, folder, len(places[path.name]) == 1)
            for file, path, (_, folder) in zip(exact, paths, rows, strict=True)
        ]

    def _at(self, name: str, folder: Path) -> Path | None:
        for spelt in (name, name.strip()):
            for start in (folder, self._root):
                path = os.path.abspath(os.path.join(start, spelt.replace("\\", "/")))
                if path in self._paths:
                    return self._paths[path]
        return None

    def _called(self, path: Path, table: Path, only_there: bool) -> Path | None:
        file = self._names.get(path.name)
        if file is None:
            return None
        named = path.parent.parts
        if not named:  # of what lies below the table, or of any if no images do
            below = table in file.parents
            return file if below or (only_there and table not in self._folders) else None
        flat = file.parent == self._root
        whole = Path(os.path.abspath(file.parent)).parts
        # A flat root has no folders but itself, and that may be called anything.
        inside = whole[-1:] if flat else file.parent.relative_to(self._root).parts
        if named[-len(inside) :] == inside:
            return file
        return file if only_there and (flat or whole[-len(named) :] == named) else None


def _path(name: str) -> Path:
    """The path that a table writes, whatever system it comes from."""
    return Path(os.path.normpath(name.strip().replace("\\", "/")))


@dataclass(frozen=True)
class _Row:
    """What a list says of an image; the split is None where it says none."""

    listing: Path
    name: str
    label: Label
    split: str | None


def _listed(
    root: Path, rows: Iterable[tuple[_Row, Path | None]], label_scheme: str | None
) -> Found:
    """Each image of the rows once, with the first label and the first split that are given.

    Where none is, its folders count, then those that a row names. What is wrong with a row goes by
    the names of list and row: the image itself may be used.
    """
    known: dict[Path, _Row] = {}
    for row, file in rows:
        entry = f"{row.listing.relative_to(root).as_posix()}: {row.name}"
        if file is None:
            yield Skipped(entry, "it is not there")
            continue
        first = known.setdefault(file, row)
        label = row.label if first.label == UNLABELLED else first.label
        known[file] = first = replace(first, label=label, split=first.split or row.split)
        against = []
        if row.label != UNLABELLED and row.label[0] != label[0]:
            said, counts = (word or "no known expression" for word, _ in (row.label, label))
            against.append(f"it says {said}, but {counts} counts")
        if row.split not in (first.split, None):
            against.append(f"it says the split {row.split}, but {first.split} counts")
        if against:
            yield Skipped(entry, "; ".join(against))
    for file, row in known.items():
        label = row.label
        if label == UNLABELLED:
            label = class_folder(root, file, label_scheme), None
        found = item(root, file, label, row.split)
        named = split_of_path(_path(row.name).as_posix())
        yield replace(found, split=found.split or named)


def table(root: Path, files: Sequence[Path], label_scheme: str | None) -> Found:
    """CSV and JSON-lines files with a column of image names, such as ImageFolder's metadata.

    An image that no label is given of has that of its folder, if any. A table that is given alone
    names its images among all that lies beside it.
    """
    columns = tables(files)
    candidates = [file for file in files if file not in columns]
    rows: list[_Row] = []
    for listing, (of_file, of_label) in columns.items():
        for row in _rows(listing):
            value = row.get(of_label) if of_label else None
            label = UNLABELLED
            if value is not None and str(value).strip():
                label = label_of(value, row.get("label_scheme") or label_scheme)
            split = split_of(str(row.get("split") or "")) or split_of(listing.stem)
            rows.append(_Row(listing, str(row.get(of_file) or ""), label, split))
    # Of what lies beside a table that is given alone, only what it names is the input.
    lookup = _Lookup(root, candidates or find_images(root))
    found = lookup.find([(row.name, row.listing.parent) for row in rows])
    yield from _listed(root, zip(rows, found, strict=True), label_scheme)
    used = set(found)
    for file in candidates:
        if file not in used and file.suffix.lower() in IMAGES and file.name != CONTACT_SHEET:
            yield Skipped(file.relative_to(root).as_posix(), "no table lists it")


def raf_db(root: Path, files: Sequence[Path], label_scheme: str | None) -> Found:
    """RAF-DB: a list of `train_00001.jpg 5`, and that image aligned, else as it is."""
    scheme = label_scheme or "raf-db"
    rows: list[_Row] = []
    for listing in (file for file in files if file.name.lower() in RAF_LISTS):
        try:
            text = listing.read_text("utf-8-sig", "replace")
        except OSError as error:
            raise UserError(f"{listing} cannot be read ({error.strerror}); mend it.") from None
        for line in filter(str.strip, text.splitlines()):
            name, _, number = line.strip().partition(" ")
            rows.append(_Row(listing, name, label_of(number, scheme), split_of(name)))
    lookup = _Lookup(root, files)
    aligned = lookup.find(
        [(f"{row.name.rpartition('.')[0] or row.name}_aligned", root) for row in rows]
    )
    as_it_is = lookup.find([(row.name, root) for row in rows])
    found = [one or other for one, other in zip(aligned, as_it_is, strict=True)]
    yield from _listed(root, zip(rows, found, strict=True), scheme)


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
