"""Tables that name images and their labels: CSV, lists, JSON lines, ImageFolder's metadata."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path

from synfer_rt.data.datasets.contents import Contents
from synfer_rt.data.datasets.formats.format import Format
from synfer_rt.data.datasets.formats.left_out import archives
from synfer_rt.data.datasets.items import UNDESCRIBED, Found, Item, Skipped
from synfer_rt.data.datasets.labels.label import UNLABELLED
from synfer_rt.data.datasets.labels.splits import split_of
from synfer_rt.data.datasets.tables.boxes import NOT_USED, split_fragment
from synfer_rt.data.datasets.tables.cells import SURVEYED, text
from synfer_rt.data.datasets.tables.entries import Entry, items_of_entries
from synfer_rt.data.datasets.tables.lookup import Lookup
from synfer_rt.data.datasets.tables.pixel_column import (
    FER2013,
    ferplus_name,
    images_of_pixels,
    with_labels_of,
)
from synfer_rt.data.datasets.tables.table import CERTAIN, Table
from synfer_rt.data.images import find_images
from synfer_rt.data.label_table import folder_of
from synfer_rt.data.writers.run_file import OLD_SHEET

_METADATA = frozenset(("metadata.jsonl", "metadata.csv"))
"""The tables of Hugging Face's ImageFolder."""


def read(contents: Contents) -> Found:
    """Each row of a table names an image, or holds its grey values, beside its label and split.

    An image that has no label in a table has that of its folder, if any. A table that is given
    alone names its images among all files beside and below it.
    """
    tables, others = contents.found_tables
    candidates = contents.without({*tables, *others})
    lookup = Lookup(contents.root, candidates.files or find_images(contents.root))
    entries: list[Entry] = []
    fer2013: list[Item | Skipped] = []
    for file, table in tables.items():
        if table.form is not None and table.of_pixels:
            images = images_of_pixels(
                contents.root, file, table.form, table.columns, contents.label_scheme
            )
            if file.stem.lower() in FER2013:
                fer2013 += images
            else:
                yield from images
            continue
        own = list(_entries(file, table, lookup, contents))
        entries += [entry for entry in own if entry.name]
        yield from _unusable(contents, file, own)
    paths = lookup.find(entries)
    yield from _fer2013(contents, fer2013, entries, paths)
    matched = list(zip(entries, paths, strict=True))
    unlabelled = False
    problem = next(filter(None, (table.columns.problem for table in tables.values())), None)
    for found in items_of_entries(contents.root, matched, contents.label_scheme):
        if isinstance(found, Item) and found.label is None and found.problem is None:
            unlabelled, found = True, replace(found, problem=problem)
        yield found
    for file, why in _unused(tables, others, unlabelled):
        yield contents.skipped(file, why)
    used = set(paths)
    for file in candidates.images:
        if file not in used and file.name != OLD_SHEET:
            yield contents.skipped(file, "no table lists it")


def _entries(file: Path, table: Table, lookup: Lookup, contents: Contents) -> Iterator[Entry]:
    """What the rows of a table say. An entry without a name names no image.

    Names in a table that `synfer-rt label` wrote begin at the folder that it labelled. Of several
    columns of images, the one that finds most counts.
    """
    columns, of_name, folder = table.columns, split_of(file.name), folder_of(file)
    scheme = contents.label_scheme or (table.form.scheme if table.form else None)
    if len(columns.files) > 1:
        columns = replace(columns, files=_by_images_found(file, table, lookup))
    for row in table.rows():
        cells = (text(row.get(column)) for column in columns.files)
        name, part = split_fragment(next(filter(None, cells), ""))
        if name and folder is not None and lookup.has(folder / name):
            name = str(folder / name)
        box = part or columns.box_of(row)
        label, split = columns.label(row, scheme), columns.split_of(row) or of_name
        person = columns.person_of(row)
        said = columns.description(row) if contents.describes else UNDESCRIBED
        if isinstance(box, str):
            yield Entry(file, name, label, split, None, box, person, said)
        else:
            yield Entry(file, name, label, split, box, None, person, said)


def _by_images_found(file: Path, table: Table, lookup: Lookup) -> tuple[str, ...]:
    """The columns that may name an image, first the one that finds most in the first rows."""

    def found(column: str) -> int:
        names = (text(row.get(column)) for row in islice(table.rows(), SURVEYED))
        entries = [Entry(file, name, UNLABELLED, None) for name in names if name]
        return sum(isinstance(path, Path) for path in lookup.find(entries))

    return tuple(sorted(table.columns.files, key=found, reverse=True))


def _unusable(contents: Contents, file: Path, entries: Sequence[Entry]) -> Iterator[Skipped]:
    """The parts of a table that can name no image."""
    if nameless := sum(not entry.name for entry in entries):
        yield contents.skipped(file, f"{nameless} of its rows name no image")
    root, folder = contents.root, folder_of(file)
    if folder is not None and not any(root.samefile(f) for f in (folder, *folder.parents)):
        why = f"synfer-rt label wrote it for the images in {folder}; move it beside that folder"
        yield contents.skipped(file, why)


def _fer2013(
    contents: Contents,
    found: Sequence[Item | Skipped],
    entries: list[Entry],
    paths: list[Path | str],
) -> Found:
    """The images of FER2013's own file, with the labels that a table of FER+ gives them, if any.

    The entries of that table, and their paths, are taken out of the lists.
    """
    images = [entry for entry in found if isinstance(entry, Item)]
    whole = len(images) == len(found)
    names = {ferplus_name(number) for number in range(len(images))} if whole else set[str]()
    of_pixels = [
        isinstance(path, str) and entry.name in names
        for entry, path in zip(entries, paths, strict=True)
    ]
    labels = {entry.name: entry.label for entry, own in zip(entries, of_pixels, strict=True) if own}
    if not labels:
        yield from found
        return
    table = contents.name(entries[of_pixels.index(True)].table)
    yield from with_labels_of(images, labels, table)
    yield Skipped(images[0].file.name, f"its labels are replaced by those in {table}")
    entries[:] = [entry for entry, own in zip(entries, of_pixels, strict=True) if not own]
    paths[:] = [path for path, own in zip(paths, of_pixels, strict=True) if not own]


def _unused(
    tables: Mapping[Path, Table], others: Mapping[Path, str], unlabelled: bool
) -> Iterator[tuple[Path, str]]:
    """The tables that are not used, in whole or in part, and why."""
    for file, table in tables.items():
        columns = table.columns
        if columns.unused_box is not None:
            yield file, NOT_USED.format(columns.unused_box)
        if unlabelled and columns.problem is not None:
            yield file, columns.problem
    yield from others.items()


def has_metadata(contents: Contents) -> bool:
    """Whether there is a table of the name that ImageFolder reads."""
    return not contents.file_names.isdisjoint(_METADATA)


def is_table(contents: Contents) -> bool:
    """Whether a table tells of images, or is all that may tell of them."""
    if contents.tables_tell or (contents.tables and not contents.folder_names.any):
        return True
    return all(file.suffix.lower() in CERTAIN for file in contents.files)


FORMAT = Format("table", read, certain=has_metadata, likely=is_table, left_out=archives)
