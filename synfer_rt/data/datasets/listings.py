"""What rows of tables and lists mean: which file each names, and what all say of it together."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from synfer_rt.data.datasets.boxes import Box, in_box
from synfer_rt.data.datasets.class_folders import ClassFolders, with_folder
from synfer_rt.data.datasets.items import IMAGES, UNLABELLED, Found, Label, Skipped, item
from synfer_rt.data.datasets.splits import split_of_path

_HOLD_IMAGES = (".tar", ".zip", ".parquet", ".csv")
_GONE = "it is not there"
_SHOWN = 200
"""Characters of a name that is none, such as a cell of pixels."""


@dataclass(frozen=True)
class Row:
    """What a list says of an image, or of the part of it in a box; None for what it does not say.

    `problem` is why it is the whole image though the row has a box.
    """

    listing: Path
    name: str
    label: Label
    split: str | None
    box: Box | None = None
    problem: str | None = None


class Lookup:
    """Files of a dataset by what tables call them; nothing outside it can be found."""

    def __init__(self, root: Path, files: Sequence[Path]) -> None:
        self._root = root
        self._starts: dict[Path, tuple[str, ...]] = {}
        self._paths = {os.path.abspath(file): file for file in files}
        images = [file for file in files if file.suffix.lower() in IMAGES]
        self._named: dict[str, list[Path]] = {}
        for file in images:
            for name in {file.name, file.stem, file.name.lower()}:
                self._named.setdefault(name, []).append(file)
        for file in files:  # what has another suffix can be named whole
            if file.name not in self._named:
                self._named[file.name] = [file]
        parents = {file.parent for file in images}
        self._folders = parents | {folder for parent in parents for folder in parent.parents}

    def has(self, path: Path) -> bool:
        """Whether a file of the dataset lies there."""
        return os.path.abspath(path) in self._paths

    def find(self, rows: Sequence[Row]) -> list[Path | str]:
        """The file that each row means, or why none is found.

        That is what lies at this path from the table's folder, or from the root. Where nothing
        does, the dataset may have lain elsewhere: then the file's name counts, if the folders of
        row and file agree as far as they are known, their splits do not differ, no other file is
        meant as well, and no other row that names another image means this one.
        """
        exact = [self._at(row.name, self._starts_of(row.listing)) for row in rows]
        guesses = [
            None if file else self._called(row) for row, file in zip(rows, exact, strict=True)
        ]
        claims: dict[Path, set[Path | None]] = {file: {None} for file in exact if file}
        splits: dict[Path, set[str]] = {}
        for row, guess in zip(rows, guesses, strict=True):
            if guess and len(guess.files) == 1:
                claims.setdefault(guess.files[0], set()).add(_path(row.name))
                splits.setdefault(guess.files[0], set()).update(filter(None, [row.split]))
        return [
            file or _only(row, guess, claims, splits)
            for row, file, guess in zip(rows, exact, guesses, strict=True)
        ]

    def _at(self, name: str, starts: Sequence[str]) -> Path | None:
        for spelt in (name, name.strip()) if name != name.strip() else (name,):
            for start in starts:
                whole = os.path.join(start, spelt.replace("\\", "/"))
                file = self._paths.get(os.path.normpath(whole))
                if file is not None:
                    return file
        return None

    def _starts_of(self, listing: Path) -> Sequence[str]:
        """Where the names in a table may begin: its folder and the root."""
        if listing not in self._starts:
            folders = (listing.parent, self._root)
            self._starts[listing] = tuple(dict.fromkeys(map(os.path.abspath, folders)))
        return self._starts[listing]

    def _called(self, row: Row) -> _Guess:
        last = row.name.strip().replace("\\", "/").rpartition("/")[2]
        called = self._named.get(last) or self._named.get(last.lower(), [])
        files = [file for file in called if self._may_be(file, row.split)]
        if not files:
            return _Guess([], False)
        path, table = _path(row.name), row.listing.parent
        named = path.parent.parts
        if not named:  # of what lies below the table, or of any if no images do
            below = [file for file in files if table in file.parents]
            return _Guess(below or ([] if table in self._folders else files), bool(below))
        ends = [file for file in files if _ends(named, self._inside(file))]
        if ends:  # the one of most folders
            deepest = max(len(self._inside(file)) for file in ends)
            return _Guess([file for file in ends if len(self._inside(file)) == deepest], True)
        flat = [file for file in files if file.parent == self._root]
        within = [f for f in files if _ends(Path(os.path.abspath(f.parent)).parts, named)]
        return _Guess(within or flat, False)

    def _inside(self, file: Path) -> tuple[str, ...]:
        """The folders of a file that its dataset knows: a flat one knows its own name alone."""
        if file.parent == self._root:
            return Path(os.path.abspath(file.parent)).parts[-1:]
        return file.parent.relative_to(self._root).parts

    def _may_be(self, file: Path, split: str | None) -> bool:
        of_file = split_of_path(file.relative_to(self._root).as_posix())
        return split is None or of_file in (split, None)


@dataclass(frozen=True)
class _Guess:
    """Files that a row may mean; `sure` where another name in a row of its split is no matter."""

    files: Sequence[Path]
    sure: bool


def _only(
    row: Row,
    guess: _Guess | None,
    claims: Mapping[Path, set[Path | None]],
    splits: Mapping[Path, set[str]],
) -> Path | str:
    if guess is None or not guess.files:
        folders = row.name.lower().replace("\\", "/").split("/")[:-1]
        inside = any(folder.endswith(_HOLD_IMAGES) for folder in folders)
        return "it lies in an archive; give that itself, without a table" if inside else _GONE
    file, *more = guess.files
    if more:
        return (
            f"several images are called so, one of them in {file.parent.name}; write their folders"
        )
    if len(splits[file]) > 1:
        return f"rows of {' and '.join(sorted(splits[file]))} have its name; write their folders"
    if guess.sure or len(claims[file]) == 1:
        return file
    return f"{_GONE}, and an image of its name is another's"


def _ends(path: Sequence[str], end: Sequence[str]) -> bool:
    return len(end) > 0 and tuple(path[-len(end) :]) == tuple(end)


def _path(name: str) -> Path:
    """The path that a table writes, whatever system it comes from."""
    return Path(os.path.normpath(name.strip().replace("\\", "/")))


def listed(root: Path, rows: Iterable[tuple[Row, Path | str]], label_scheme: str | None) -> Found:
    """Each image of the rows once, with the first label and the first split that are given.

    An image of which rows give several boxes is one for each box. Where no label is given, its
    folders count; where no split is, they and those that a row names do. What is wrong with a row
    goes by the names of list and row: the image itself may be used.
    """
    rows = list(rows)
    names = {x: x.relative_to(root).as_posix() for x in {row.listing for row, _ in rows}}
    folders = {file.parent for _, file in rows if isinstance(file, Path)}
    lies_in = {x: split_of_path(f"{x.relative_to(root).as_posix()}/") for x in folders}
    known: dict[tuple[Path, Box | None], Row] = {}
    for row, file in _with_boxes(rows):
        entry = f"{names[row.listing]}: {row.name[:_SHOWN]}"
        if isinstance(file, str):
            yield Skipped(entry, file)
            continue
        if row.problem is not None:
            yield Skipped(entry, f"{row.problem}; its image is used as it is")
        first = known.setdefault((file, row.box), row)
        label = row.label if first.label == UNLABELLED else first.label
        split = first.split or row.split
        known[file, row.box] = first = replace(first, label=label, split=split)
        against = []
        if row.label != UNLABELLED and row.label.name != label.name:
            said, counts = (one.name or "no known expression" for one in (row.label, label))
            against.append(f"it says {said}, but {counts} counts")
        if row.split not in (first.split, None):
            against.append(f"it says the split {row.split}, but {first.split} counts")
        elif None not in (row.split, lies_in[file.parent]) and row.split != lies_in[file.parent]:
            against.append(f"it says the split {row.split}, but lies in {lies_in[file.parent]}")
        if against:
            yield Skipped(entry, "; ".join(against))
    files = {file: file.relative_to(root).as_posix() for file in dict.fromkeys(x for x, _ in known)}
    classes = ClassFolders(files.values(), label_scheme)
    for (file, box), row in known.items():
        label = with_folder(row.label, classes.label(files[file]))
        found = item(root, file, label, row.split)
        split = found.split or split_of_path(_path(row.name).as_posix())
        split = split or split_of_path(names[row.listing])
        yield in_box(replace(found, split=split), box)


def _with_boxes(
    rows: Sequence[tuple[Row, Path | str]],
) -> Iterator[tuple[Row, Path | str]]:
    """The rows, one without a box with that of the others of its image, where these have one."""
    boxes: dict[Path, set[Box]] = {}
    for row, file in rows:
        if isinstance(file, Path) and row.box is not None:
            boxes.setdefault(file, set()).add(row.box)
    for row, file in rows:
        known = boxes.get(file, ()) if isinstance(file, Path) and row.box is None else ()
        if len(known) > 1:
            yield row, f"it does not say which of the {len(known)} faces in the image is meant"
        elif known:
            yield replace(row, box=next(iter(known)), problem=None), file
        else:
            yield row, file
