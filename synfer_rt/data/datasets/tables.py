"""Datasets whose tables name images and labels: ImageFolder's metadata, CSV, lists, JSON lines."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path

from synfer_rt.data.datasets.boxes import NOT_USED, split_fragment
from synfer_rt.data.datasets.columns import SURVEYED, text
from synfer_rt.data.datasets.items import IMAGES, UNLABELLED, Found, Item, Skipped
from synfer_rt.data.datasets.listings import Lookup, Row, listed
from synfer_rt.data.datasets.pixels import OWN_NAMES, images_of_pixels, own_name, with_labels_of
from synfer_rt.data.datasets.splits import split_of
from synfer_rt.data.datasets.table_files import Table, look
from synfer_rt.data.images import find_images
from synfer_rt.data.label_table import folder_of
from synfer_rt.data.writers.run_file import OLD_SHEET


def table(root: Path, files: Sequence[Path], label_scheme: str | None) -> Found:
    """Tables of image names, such as ImageFolder's metadata; and those of grey values.

    An image that no label is given of has that of its folder, if any. A table that is given alone
    names its images among all that lies beside it.
    """
    found, others = look(files)
    candidates = [file for file in files if file not in found and file not in others]
    # Of what lies beside a table that is given alone, only what it names is the input.
    lookup = Lookup(root, candidates or find_images(root))
    rows: list[Row] = []
    fer2013: list[Item | Skipped] = []
    for listing, table in found.items():
        if table.form is not None and table.of_pixels:
            images = images_of_pixels(root, listing, table.form, table.columns, label_scheme)
            if listing.stem.lower() in OWN_NAMES:
                fer2013 += images
            else:
                yield from images
            continue
        own = list(_rows(listing, table, lookup, label_scheme))
        rows += [row for row in own if row.name]
        if nameless := sum(not row.name for row in own):
            yield Skipped(_name(root, listing), f"{nameless} of its rows name no image")
        folder = folder_of(listing)
        if folder is not None and not any(root.samefile(f) for f in (folder, *folder.parents)):
            why = f"label wrote it for images in {folder}; move it beside that folder"
            yield Skipped(_name(root, listing), why)
    paths = lookup.find(rows)
    yield from _fer2013(root, fer2013, rows, paths)
    unlabelled = False
    problems = [table.columns.problem for table in found.values()]
    for entry in listed(root, zip(rows, paths, strict=True), label_scheme):
        if isinstance(entry, Item) and entry.label is None and entry.problem is None:
            unlabelled, entry = True, replace(entry, problem=next(filter(None, problems), None))
        yield entry
    for file, why in _unused(found, others, unlabelled):
        yield Skipped(_name(root, file), why)
    used = set(paths)
    for file in candidates:
        if file not in used and file.suffix.lower() in IMAGES and file.name != OLD_SHEET:
            yield Skipped(_name(root, file), "no table lists it")


def _fer2013(
    root: Path, entries: Sequence[Item | Skipped], rows: list[Row], paths: list[Path | str]
) -> Found:
    """The images of FER2013's own file, by FER+'s labels where rows name them; takes those out."""
    images = [entry for entry in entries if isinstance(entry, Item)]
    names = {own_name(number) for number in range(len(images))} if images == entries else set()
    of_pixels = [
        isinstance(path, str) and row.name in names for row, path in zip(rows, paths, strict=True)
    ]
    labels = {row.name: row.label for row, own in zip(rows, of_pixels, strict=True) if own}
    if not labels:
        yield from entries
        return
    listing = _name(root, rows[of_pixels.index(True)].listing)
    yield from with_labels_of(images, labels, listing)
    yield Skipped(images[0].file.name, f"its own labels do not count, but those of {listing} do")
    rows[:] = [row for row, own in zip(rows, of_pixels, strict=True) if not own]
    paths[:] = [path for path, own in zip(paths, of_pixels, strict=True) if not own]


def _unused(
    found: Mapping[Path, Table], others: Mapping[Path, str], unlabelled: bool
) -> Iterator[tuple[Path, str]]:
    """What of the tables is not used, and why: columns and whole tables."""
    for file, table in found.items():
        columns = table.columns
        if columns.unused_box is not None:
            yield file, NOT_USED.format(columns.unused_box)
        if unlabelled and columns.problem is not None:
            yield file, columns.problem
    yield from others.items()


def _name(root: Path, file: Path) -> str:
    return file.relative_to(root).as_posix()


def _rows(listing: Path, table: Table, lookup: Lookup, label_scheme: str | None) -> Iterator[Row]:
    """What the rows say, by the column of images that finds most; some name none.

    Names in a table that `label` wrote begin at the folder that it labelled.
    """
    columns, of_name, folder = table.columns, split_of(listing.name), folder_of(listing)
    scheme = label_scheme or (table.form.scheme if table.form else None)
    if len(columns.files) > 1:
        columns = replace(columns, files=_by_images_found(listing, table, lookup))
    for row in table.rows():
        cells = (text(row.get(column)) for column in columns.files)
        name, part = split_fragment(next(filter(None, cells), ""))
        if name and folder is not None and lookup.has(folder / name):
            name = str(folder / name)
        box = part or columns.box_of(row)
        label, split = columns.label(row, scheme), columns.split_of(row) or of_name
        if isinstance(box, str):
            yield Row(listing, name, label, split, None, box)
        else:
            yield Row(listing, name, label, split, box)


def _by_images_found(listing: Path, table: Table, lookup: Lookup) -> tuple[str, ...]:
    """The columns that may name an image, first the one whose names find most in the first rows."""

    def found(column: str) -> int:
        names = (text(row.get(column)) for row in islice(table.rows(), SURVEYED))
        rows = [Row(listing, name, UNLABELLED, None) for name in names if name]
        return sum(isinstance(path, Path) for path in lookup.find(rows))

    return tuple(sorted(table.columns.files, key=found, reverse=True))
