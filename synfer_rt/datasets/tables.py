"""Datasets whose tables name images and labels: ImageFolder's metadata, CSV, lists, JSON lines."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from itertools import islice
from pathlib import Path
from typing import Any

from synfer_rt.datasets.boxes import NOT_USED, split_fragment
from synfer_rt.datasets.columns import (
    PIXELS,
    PIXELS_ELSEWHERE,
    SURVEYED,
    Columns,
    by_key,
    columns_of,
    is_image_name,
    key,
    names_images,
    survey,
    text,
)
from synfer_rt.datasets.items import IMAGES, UNLABELLED, Found, Item, Skipped
from synfer_rt.datasets.listings import Lookup, Row, listed
from synfer_rt.datasets.pixels import OWN_NAMES, images_of_pixels, own_name, with_labels_of
from synfer_rt.datasets.separated import Form, encoding_of, first_line, form_of, rows_of
from synfer_rt.datasets.splits import split_of
from synfer_rt.errors import UserError
from synfer_rt.images import find_images
from synfer_rt.label_table import folder_of
from synfer_rt.writers.run_file import OLD_SHEET

_JSON_LINES = (".jsonl", ".ndjson")
CERTAIN = (".csv", ".tsv", *_JSON_LINES)
"""Suffixes of what can be nothing but a table."""
TABLES = (*CERTAIN, ".txt", ".lst", ".list", ".json", ".parquet")
"""Suffixes of what may be a table of images."""
_LISTS = (".txt", ".lst", ".list")
_STEM = "stem"

Rows = Callable[[], Iterator[Mapping[str, Any]]]


@dataclass(frozen=True)
class Table:
    """A table that names images: its columns, and its rows by their keys, read anew each time."""

    columns: Columns
    rows: Rows
    form: Form | None = None

    def tells_of(self, name: str) -> bool:
        """Whether it says more of images than their names; its own `name` may say their split."""
        columns = self.columns
        said = columns.labels or columns.votes or columns.split or columns.box or self.of_pixels
        return bool(said or split_of(name))

    @property
    def of_pixels(self) -> bool:
        """Whether it holds the images themselves, as numbers."""
        return self.form is not None and PIXELS in map(key, self.columns.names)


@dataclass(frozen=True)
class _Opened:
    names: tuple[str, ...]
    named: bool
    values: Mapping[str, set[str]]
    rows: Rows
    form: Form | None = None


def tables(files: Iterable[Path]) -> dict[Path, Table]:
    """The tables among files that name images."""
    return look(files)[0]


def look(files: Iterable[Path]) -> tuple[dict[Path, Table], dict[Path, str]]:
    """The tables among files that name images, and of the other tables why they do not.

    Raises UserError for a table that cannot be read.
    """
    files = list(files)
    present, stems = set(files), {name for file in files for name in (file.name, file.stem)}
    found: dict[Path, Table] = {}
    others: dict[Path, str] = {}
    for file in files:
        suffix = file.suffix.lower()
        if suffix not in TABLES or (suffix == ".json" and _beside_an_image(file, present)):
            continue
        opened = _open(file)
        if opened is None and suffix in _LISTS and (rows := _stems(file, stems)):
            found[file] = Table(Columns((_STEM,), (_STEM,)), partial(iter, rows))
            continue
        if opened is not None:
            columns = columns_of(opened.names, opened.values, stems, opened.named)
            table = Table(columns, opened.rows, opened.form)
            a_list = len(opened.names) == 1 and not opened.named
            if a_list and not table.tells_of(file.name) and len(files) > 1:
                others[file] = "it lists images, and nothing says what for"
                continue
            if PIXELS in opened.values and opened.form is None:
                others[file] = PIXELS_ELSEWHERE
                continue
            if columns.files or table.of_pixels:
                found[file] = table
                continue
        if suffix in CERTAIN:
            others[file] = _columns_found(file, opened)
    return found, others


def _stems(file: Path, stems: Collection[str]) -> list[Mapping[str, str]]:
    """The rows of a list of a split that names images without their suffixes, as VOC's do."""
    if split_of(file.name) is None:
        return []
    try:
        lines = list(filter(None, map(str.strip, file.read_text(encoding_of(file)).splitlines())))
    except (OSError, ValueError):
        return []
    known = sum(line.rpartition("/")[2] in stems for line in lines)
    return [{_STEM: line} for line in lines] if 2 * known > len(lines) else []


def _beside_an_image(file: Path, present: set[Path]) -> bool:
    return any(file.with_suffix(suffix) in present for suffix in IMAGES)


def _columns_found(file: Path, opened: _Opened | None) -> str:
    try:
        names = opened.names if opened else first_line(file)
    except (OSError, ValueError, csv.Error):
        names = ()
    if not any(names):
        return "it is empty"
    found = f"its columns {', '.join(names)}"
    if names_images([key(name) for name in names]):
        return f"{found} have no row that names an image"
    return f"{found}: none names images; call that column file_name"


def _open(file: Path) -> _Opened | None:
    try:
        stat = file.stat()
        return _opened(file, stat.st_size, stat.st_mtime_ns)
    except (OSError, ValueError, RecursionError, csv.Error) as error:
        if file.suffix.lower() not in CERTAIN:
            return None
        remedy = "save it as UTF-8" if isinstance(error, UnicodeError) else "mend it"
        raise UserError(f"{file} is no table that can be read ({error}); {remedy}.") from None


@lru_cache(maxsize=32)
def _opened(file: Path, size: int, changed: int) -> _Opened | None:
    """What a file says of itself, by its size and time of change; None where it is no table."""
    suffix = file.suffix.lower()
    if suffix == ".parquet":
        return _parquet(file)
    if suffix in (*_JSON_LINES, ".json"):
        rows: Rows = partial(_json_lines if suffix in _JSON_LINES else _json_rows, file)
        names = dict.fromkeys(name for row in rows() for name in row)
        return _Opened(tuple(names), True, survey(rows()), rows) if names else None
    form = form_of(file)
    if form is None:
        return None
    rows = partial(rows_of, file, form)
    return _Opened(form.names, form.named, survey(rows()), rows, form)


def _json_lines(file: Path) -> Iterator[Mapping[str, Any]]:
    with file.open(encoding=encoding_of(file)) as stream:
        for row in map(json.loads, filter(str.strip, stream)):
            yield by_key(row) if isinstance(row, dict) else {}


def _json_rows(file: Path) -> Iterator[Mapping[str, Any]]:
    """The rows of a list of objects, or of an object that has one, or a label, for each image."""
    content = json.loads(file.read_text(encoding_of(file)))
    if isinstance(content, list):
        yield from (by_key(row) for row in content if isinstance(row, dict))
    elif isinstance(content, dict) and content and all(map(is_image_name, content)):
        for name, said in content.items():
            yield {"filename": name} | (by_key(said) if isinstance(said, dict) else {"label": said})


def _parquet(file: Path) -> _Opened | None:
    import pyarrow as pa

    from synfer_rt.datasets.parquet import names_of, rows_without_images

    try:
        names = names_of(file)
    except pa.ArrowException:
        return None
    if names is None or not names_images([key(name) for name in names]):
        return None
    rows = partial(rows_without_images, file)
    return _Opened(names, True, survey(rows()), rows)


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
