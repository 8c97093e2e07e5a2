"""The files of a dataset that the entries of its tables name."""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from synfer_rt.data.datasets.items import IMAGES, name_below
from synfer_rt.data.datasets.labels.splits import split_of_path
from synfer_rt.data.datasets.tables.entries import Entry

_ARCHIVES = (".tar", ".zip", ".parquet", ".csv")
_GONE = "there is no such file"


@dataclass(frozen=True)
class _Guess:
    """Files that an entry may name; `sure` if other names in entries of its split do not matter."""

    files: Sequence[Path]
    sure: bool


class Lookup:
    """The files of a dataset by the names that tables give them. It finds no other file."""

    def __init__(self, root: Path, files: Sequence[Path]) -> None:
        self._root = root
        self._starts: dict[Path, Sequence[str]] = {}
        self._files = files
        self._paths = {os.path.abspath(file): file for file in files}

    @cached_property
    def _images(self) -> Sequence[Path]:
        return [file for file in self._files if file.suffix.lower() in IMAGES]

    @cached_property
    def _named(self) -> Mapping[str, Sequence[Path]]:
        """The files by their names: images with and without suffix, others with it."""
        named: dict[str, list[Path]] = {}
        for file in self._images:
            for written in {file.name, file.stem, file.name.lower()}:
                named.setdefault(written, []).append(file)
        for file in self._files:
            named.setdefault(file.name, [file])
        return named

    @cached_property
    def _folders(self) -> Collection[Path]:
        """The folders that images are in, at any depth."""
        parents = {file.parent for file in self._images}
        return parents | {folder for parent in parents for folder in parent.parents}

    def has(self, path: Path) -> bool:
        """Whether a file of the dataset has this path."""
        return os.path.abspath(path) in self._paths

    def find(self, entries: Sequence[Entry]) -> list[Path | str]:
        """For each entry the file that it names, or why there is none.

        That is the file at its path, from the table's folder or from the root of the dataset. If
        there is none, the dataset may have been moved: then a file of the same name counts, if the
        folders of entry and file agree as far as they are known, their splits do not differ, no
        other file has that name, and no entry names another image that this file would be.
        """
        exact = [self._at(entry.name, self._starts_of(entry.table)) for entry in entries]
        guesses = [
            None if file else self._called(entry)
            for entry, file in zip(entries, exact, strict=True)
        ]
        claims: dict[Path, set[Path]] = {}
        splits: dict[Path, set[str]] = {}
        for entry, guess in zip(entries, guesses, strict=True):
            if guess and len(guess.files) == 1:
                claims.setdefault(guess.files[0], set()).add(entry.path)
                splits.setdefault(guess.files[0], set()).update(filter(None, [entry.split]))
        named = set(exact) if claims else set[Path | None]()
        alone = {file for file, paths in claims.items() if len(paths) == 1 and file not in named}
        return [
            file or _only(entry, guess, alone, splits)
            for entry, file, guess in zip(entries, exact, guesses, strict=True)
        ]

    def _at(self, name: str, starts: Sequence[str]) -> Path | None:
        for spelt in (name, name.strip()) if name != name.strip() else (name,):
            for start in starts:
                whole = os.path.join(start, spelt.replace("\\", "/"))
                file = self._paths.get(os.path.normpath(whole))
                if file is not None:
                    return file
        return None

    def _starts_of(self, table: Path) -> Sequence[str]:
        """Where the names in a table may begin: at its folder and at the root."""
        if table not in self._starts:
            folders = (table.parent, self._root)
            self._starts[table] = tuple(dict.fromkeys(map(os.path.abspath, folders)))
        return self._starts[table]

    def _called(self, entry: Entry) -> _Guess:
        """The files that have the file name of an entry, and may be meant by it."""
        last = entry.name.strip().replace("\\", "/").rpartition("/")[2]
        called = self._named.get(last) or self._named.get(last.lower(), [])
        files = [file for file in called if self._may_be(file, entry.split)]
        if not files:
            return _Guess([], False)
        folders, beside = entry.path.parent.parts, entry.table.parent
        if not folders:  # an image below the table; any image if there are none below it
            below = [file for file in files if beside in file.parents]
            return _Guess(below or ([] if beside in self._folders else files), bool(below))
        ends = [file for file in files if _ends(folders, self._inside(file))]
        if ends:  # those of which most folders agree
            deepest = max(len(self._inside(file)) for file in ends)
            return _Guess([file for file in ends if len(self._inside(file)) == deepest], True)
        flat = [file for file in files if file.parent == self._root]
        within = [f for f in files if _ends(Path(os.path.abspath(f.parent)).parts, folders)]
        return _Guess(within or flat, False)

    def _inside(self, file: Path) -> tuple[str, ...]:
        """The folders of a file from the root of the dataset; of a file in the root, the root."""
        if file.parent == self._root:
            return Path(os.path.abspath(file.parent)).parts[-1:]
        return file.parent.relative_to(self._root).parts

    def _may_be(self, file: Path, split: str | None) -> bool:
        """Whether the folders of a file do not say that it is of another split."""
        return split is None or split_of_path(name_below(self._root, file)) in (split, None)


def _only(
    entry: Entry, guess: _Guess | None, alone: set[Path], splits: Mapping[Path, set[str]]
) -> Path | str:
    """The one file that may be meant, or why none can be.

    `alone` are the files that all entries call by one name, and `splits` those of their entries.
    """
    if guess is None or not guess.files:
        folders = entry.name.lower().replace("\\", "/").split("/")[:-1]
        inside = any(folder.endswith(_ARCHIVES) for folder in folders)
        return (
            "it is in an archive; read the archive itself, without the table" if inside else _GONE
        )
    file, *more = guess.files
    if more:
        one = f"one of them in {file.parent.name}"
        return f"several images have this name, {one}; write their folders, too"
    if len(splits[file]) > 1:
        named = " and ".join(sorted(splits[file]))
        return f"rows of {named} have this name; write the folders of their images, too"
    if guess.sure or file in alone:
        return file
    return f"{_GONE}, and the image of this name belongs to another row"


def _ends(path: Sequence[str], end: Sequence[str]) -> bool:
    return len(end) > 0 and tuple(path[-len(end) :]) == tuple(end)
