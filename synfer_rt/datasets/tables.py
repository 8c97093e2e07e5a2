"""Datasets whose tables name images and labels: ImageFolder's metadata, CSV, JSON lines."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from synfer_rt.contact_sheet import FILE as CONTACT_SHEET
from synfer_rt.datasets.items import IMAGES, UNLABELLED, Found, Skipped, label_of
from synfer_rt.datasets.listings import Lookup, Row, listed
from synfer_rt.datasets.splits import split_of
from synfer_rt.errors import UserError
from synfer_rt.images import find_images

TABLES = (".csv", ".jsonl")

AFFECTNET_COLUMN = "subdirectory_filepath"
"""What AffectNet's CSV files call the image, in lower case; no other dataset's tables do."""

_FILE_COLUMNS = ("file_name", "filename", AFFECTNET_COLUMN, "path", "pth", "image", "file")
_LABEL_COLUMNS = ("label", "expression", "emotion", "class", "exp")


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


def table(root: Path, files: Sequence[Path], label_scheme: str | None) -> Found:
    """CSV and JSON-lines files with a column of image names, such as ImageFolder's metadata.

    An image that no label is given of has that of its folder, if any. A table that is given alone
    names its images among all that lies beside it.
    """
    columns = tables(files)
    candidates = [file for file in files if file not in columns]
    rows: list[Row] = []
    for listing, (of_file, of_label) in columns.items():
        for row in _rows(listing):
            value = row.get(of_label) if of_label else None
            label = UNLABELLED
            if value is not None and str(value).strip():
                label = label_of(value, row.get("label_scheme") or label_scheme)
            said = str(row.get("split") or row.get("usage") or "")
            split = split_of(said) or split_of(listing.stem)
            rows.append(Row(listing, str(row.get(of_file) or ""), label, split))
    # Of what lies beside a table that is given alone, only what it names is the input.
    lookup = Lookup(root, candidates or find_images(root))
    found = lookup.find([(row.name, row.listing.parent) for row in rows])
    yield from listed(root, zip(rows, found, strict=True), label_scheme)
    used = set(found)
    for file in candidates:
        if file not in used and file.suffix.lower() in IMAGES and file.name != CONTACT_SHEET:
            yield Skipped(file.relative_to(root).as_posix(), "no table lists it")
