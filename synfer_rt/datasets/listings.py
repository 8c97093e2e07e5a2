"""What rows of tables and lists mean: which file each names, and what all say of it together."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from synfer_rt.datasets.folders import class_folders
from synfer_rt.datasets.items import (
    IMAGES,
    UNLABELLED,
    Found,
    Label,
    Skipped,
    item,
)
from synfer_rt.datasets.splits import split_of_path


class Lookup:
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
class Row:
    """What a list says of an image; the split is None where it says none."""

    listing: Path
    name: str
    label: Label
    split: str | None


def listed(root: Path, rows: Iterable[tuple[Row, Path | None]], label_scheme: str | None) -> Found:
    """Each image of the rows once, with the first label and the first split that are given.

    Where none is, its folders count, then those that a row names. What is wrong with a row goes by
    the names of list and row: the image itself may be used.
    """
    known: dict[Path, Row] = {}
    for row, file in rows:
        entry = f"{row.listing.relative_to(root).as_posix()}: {row.name}"
        if file is None:
            yield Skipped(entry, "it is not there")
            continue
        first = known.setdefault(file, row)
        label = row.label if first.label == UNLABELLED else first.label
        known[file] = first = replace(first, label=label, split=first.split or row.split)
        against = []
        if row.label != UNLABELLED and row.label.name != label.name:
            said, counts = (one.name or "no known expression" for one in (row.label, label))
            against.append(f"it says {said}, but {counts} counts")
        if row.split not in (first.split, None):
            against.append(f"it says the split {row.split}, but {first.split} counts")
        if against:
            yield Skipped(entry, "; ".join(against))
    classes = class_folders(root, list(known), label_scheme)
    for file, row in known.items():
        label = row.label
        if label == UNLABELLED:
            of_folder = classes.label(file.relative_to(root).as_posix())
            label = UNLABELLED if of_folder.written is None else of_folder
        found = item(root, file, label, row.split)
        named = split_of_path(_path(row.name).as_posix())
        yield replace(found, split=found.split or named)
