"""Labelled image datasets that exist, whatever their layout: where each image is and what it shows.

Reading a dataset lists it: no image is decoded, nothing is unpacked. Archives are read in place, by
position, so the names in them are labels for reports and never paths. What cannot be used is listed
too, with the reason.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from synfer_rt import labels
from synfer_rt.datasets import archives, layouts
from synfer_rt.datasets.items import Found, Item, Skipped
from synfer_rt.errors import UserError
from synfer_rt.images import find_images

__all__ = [
    "FORMATS",
    "Dataset",
    "Item",
    "Skipped",
    "read_dataset",
    "read_datasets",
    "refuse_inside",
]

_READERS: dict[str, Callable[[Path, Sequence[Path], str | None], Found]] = {
    "images": layouts.images,
    "folders": layouts.folders,
    "table": layouts.table,
    "raf-db": layouts.raf_db,
    "affectnet": layouts.affectnet,
    "parquet": archives.parquet,
    "webdataset": archives.webdataset,
}
FORMATS = tuple(_READERS)
"""Of a dataset that is read; docs/labelling.md says what each looks like."""


@dataclass(frozen=True)
class Dataset:
    """The images of a dataset, in a fixed order, and what of it is left out."""

    path: Path
    format: str
    items: tuple[Item, ...]
    skipped: tuple[Skipped, ...] = ()

    def counts(self) -> dict[str, int]:
        """The number of images by label, of those that have one."""
        return dict(Counter(item.label for item in self.items if item.label is not None))

    @property
    def digest(self) -> str:
        """SHA-256 of names and labels in their order: whether the dataset is still the same."""
        listed = [[item.name, item.label] for item in self.items]
        listed += [[entry.name, entry.reason] for entry in self.skipped]
        return hashlib.sha256(json.dumps(listed).encode()).hexdigest()


def read_dataset(
    path: str | Path,
    format: str = "auto",
    label_scheme: str | None = None,
    split: str | None = None,
) -> Dataset:
    """List the dataset at `path`, a directory or a file. A table stands for what it names.

    `format` is a key of FORMATS, or "auto" to see which it is. `label_scheme` gives numbers their
    meaning where the dataset does not (RAF-DB's count from 1). `split` keeps only that part.

    Raises UserError for a path that is not there, an unknown format, scheme or split, an output of
    synfer-rt that is not finished, and a dataset of which nothing can be used.
    """
    path = Path(path)
    if format != "auto" and format not in FORMATS:
        raise UserError(f"Unknown format {format!r}; known are auto, {', '.join(FORMATS)}.")
    if label_scheme is not None:
        labels.scheme(label_scheme)
    root = path if path.is_dir() else path.parent
    files = find_images(path)
    if unfinished := [file for file in files if file.suffix == ".partial"]:
        raise UserError(
            f"{unfinished[0]} is a file that synfer-rt has not finished; run its command again "
            "with --resume first."
        )
    format = _format(root, files, label_scheme) if format == "auto" else format
    items: list[Item] = []
    skipped: list[Skipped] = []
    for found in _READERS[format](root, files, label_scheme):
        (items if isinstance(found, Item) else skipped).append(found)  # type: ignore[arg-type]
    splits = sorted({item.split for item in items if item.split})
    if split is not None:
        if split not in splits:
            known = f"it has {', '.join(splits)}" if splits else "it has none; leave out --split"
            raise UserError(f"{path} has no split {split!r}; {known}.")
        items = [item for item in items if item.split == split]
    if not items:
        why = f" ({skipped[0].name}: {skipped[0].reason})" if skipped else ""
        raise UserError(f"{path} holds no image that can be used as {format}{why}; see --format.")
    return Dataset(path, format, tuple(items), tuple(skipped))


def read_datasets(
    paths: Sequence[Path], format: str, label_scheme: str | None, split: str | None
) -> Dataset:
    """Several datasets or images as one; names are then the whole paths. See read_dataset."""
    parts = [read_dataset(path, format, label_scheme, split) for path in paths]
    if len(parts) == 1:
        return parts[0]

    def renamed(part: Dataset, entries: Iterable[Any]) -> list[Any]:
        root = part.path if part.path.is_dir() else part.path.parent
        return [replace(entry, name=(root / entry.name).as_posix()) for entry in entries]

    items = [item for part in parts for item in renamed(part, part.items)]
    skipped = [entry for part in parts for entry in renamed(part, part.skipped)]
    formats = "+".join(sorted({part.format for part in parts}))
    return Dataset(Path("."), formats, tuple(items), tuple(skipped))


def refuse_inside(out: Path, inputs: Sequence[Path]) -> None:
    """Raise UserError when `out` would lie in one of the inputs: they are only ever read.

    It may lie beside a table: of the folder only what the table names is the input.
    """
    for path in inputs:
        if path.is_dir() and out.resolve().is_relative_to(path.resolve()):
            raise UserError(f"{out} lies inside the input {path}; choose another --out.")


def _format(root: Path, files: Sequence[Path], label_scheme: str | None) -> str:
    names = {file.name for file in files}
    suffixes = Counter(file.suffix.lower() for file in files)
    if names & set(layouts.RAF_LISTS):
        return "raf-db"
    if names & {"metadata.jsonl", "metadata.csv"}:
        return "table"
    for suffix, format in ((".tar", "webdataset"), (".parquet", "parquet")):
        if suffixes[suffix]:
            return format
    if any(name.endswith("_exp.npy") for name in names):
        return "affectnet"
    columns = layouts.tables(files).values()
    if columns and all(of_file.lower() == layouts.AFFECTNET_COLUMN for of_file, _ in columns):
        return "affectnet"
    if columns or all(file.suffix in layouts.TABLES for file in files):
        return "table"
    if any(layouts.class_folder(root, file, label_scheme) for file in files):
        return "folders"
    return "images"
