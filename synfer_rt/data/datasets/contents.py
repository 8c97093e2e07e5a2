"""The files of a dataset, with what formats need to know of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

from synfer_rt.data.datasets.items import IMAGES, Item, Skipped, name_below
from synfer_rt.data.datasets.labels.folder_names import FolderNames
from synfer_rt.data.datasets.labels.label import Label
from synfer_rt.data.datasets.labels.splits import split_of_path
from synfer_rt.data.datasets.tables.table import Table, find_tables


@dataclass(frozen=True)
class Contents:
    """The files of a dataset.

    `root` is the folder that names begin at, and `files` are those of the dataset at or below it,
    sorted. `label_scheme` gives label numbers their meaning; None if nothing does. `describes` says
    whether items get their descriptions.
    """

    root: Path
    files: Sequence[Path]
    label_scheme: str | None = None
    describes: bool = False

    @cached_property
    def images(self) -> Sequence[Path]:
        """The files that have the suffix of an image."""
        return [file for file in self.files if file.suffix.lower() in IMAGES]

    @cached_property
    def file_names(self) -> frozenset[str]:
        """The names of the files without their folders, in lower case."""
        return frozenset(file.name.lower() for file in self.files)

    @cached_property
    def suffixes(self) -> Counter[str]:
        """The number of files by suffix, in lower case."""
        return Counter(file.suffix.lower() for file in self.files)

    @cached_property
    def found_tables(self) -> tuple[Mapping[Path, Table], Mapping[Path, str]]:
        """The tables of images, and the other tables with what is wrong with them.

        Raises UserError for a table that cannot be read.
        """
        return find_tables(self.files)

    @property
    def tables(self) -> Mapping[Path, Table]:
        """The files that are tables of images. Raises UserError as `found_tables` does."""
        return self.found_tables[0]

    @cached_property
    def tables_tell(self) -> bool:
        """Whether a table says more of images than their names."""
        return any(table.tells_of(file.name) for file, table in self.tables.items())

    @cached_property
    def folder_names(self) -> FolderNames:
        """The classes that the folders are named after."""
        return FolderNames(map(self.name, self.files), self.label_scheme)

    def without(self, left_out: Collection[Path]) -> Contents:
        """The same without these files."""
        if not left_out:
            return self
        return replace(self, files=[file for file in self.files if file not in left_out])

    def name(self, file: Path) -> str:
        """The name of a file in the dataset: its path from `root`, with `/`."""
        return name_below(self.root, file)

    def item(
        self, file: Path, label: Label, split: str | None = None, person: str | None = None
    ) -> Item:
        """An image file as an item. Without a `split`, the names of its folders give it."""
        name = self.name(file)
        split = split or split_of_path(name)
        return Item(name, *label, split, file, file.read_bytes, person=person)

    def skipped(self, file: Path, reason: str) -> Skipped:
        """A file that is not used."""
        return Skipped(self.name(file), reason)
