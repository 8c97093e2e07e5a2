"""Tables that name images: which files are such tables, and what they hold."""

from __future__ import annotations

import csv
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path

from synfer_rt.data.datasets.items import IMAGES
from synfer_rt.data.datasets.labels.splits import split_of
from synfer_rt.data.datasets.tables.cells import Row, survey
from synfer_rt.data.datasets.tables.column_names import PIXELS, key
from synfer_rt.data.datasets.tables.columns import Columns, columns_of, names_images
from synfer_rt.data.datasets.tables.delimited import Form, encoding_of, first_line, form_of, rows_of
from synfer_rt.data.datasets.tables.json_rows import JSON, JSON_LINES, json_rows
from synfer_rt.data.datasets.tables.parquet_file import SUFFIX as PARQUET
from synfer_rt.data.datasets.tables.parquet_file import opened, parquet_rows
from synfer_rt.errors import UserError

CERTAIN = (".csv", ".tsv", *JSON_LINES)
"""Suffixes of files that can only be tables."""
_LISTS = (".txt", ".lst", ".list")
"""Suffixes of files that may list images by their names without suffix."""
_SUFFIXES = (*CERTAIN, *_LISTS, JSON, PARQUET)
"""Suffixes of files that may be tables of images."""
_STEM = "stem"
"""The key of the only column of such a list."""
PIXELS_ELSEWHERE = "its column pixels is only read from CSV files; save the table as CSV"
"""Why images are not read from a table of another kind."""

Rows = Callable[[], Iterator[Row]]


@dataclass(frozen=True)
class Table:
    """A table that names images, or holds them as numbers.

    `rows` reads its rows anew, by the keys of their columns. `form` is how it is written, if it is
    delimited text.
    """

    columns: Columns
    rows: Rows
    form: Form | None = None

    def tells_of(self, name: str) -> bool:
        """Whether it says more of images than their names; its file `name` may say their split."""
        columns = self.columns
        said = columns.labels or columns.votes or columns.split or columns.box or self.of_pixels
        return bool(said or split_of(name))

    @property
    def of_pixels(self) -> bool:
        """Whether it holds the images themselves, as numbers."""
        return self.form is not None and PIXELS in map(key, self.columns.names)


@dataclass(frozen=True)
class _Opened:
    """A file that may be a table: its columns, whether it names them, and their first values."""

    names: tuple[str, ...]
    named: bool
    values: Mapping[str, set[str]]
    rows: Rows
    form: Form | None = None


def find_tables(files: Sequence[Path]) -> tuple[dict[Path, Table], dict[Path, str]]:
    """The tables among `files` that name images, and the other tables with what is wrong with them.

    Raises UserError for a table that cannot be read.
    """
    found: dict[Path, Table] = {}
    others: dict[Path, str] = {}
    candidates = [file for file in files if file.suffix.lower() in _SUFFIXES]
    if not candidates:
        return found, others
    present, stems = set(files), _names_and_stems(files)
    for file in candidates:
        if file.suffix.lower() == JSON and _beside_an_image(file, present):
            continue
        seen = _seen(file, stems, len(files) == 1)
        if isinstance(seen, Table):
            found[file] = seen
        elif seen is not None:
            others[file] = seen
    return found, others


def _names_and_stems(files: Sequence[Path]) -> set[str]:
    return {name for file in files for name in (file.name, file.stem)}


def _beside_an_image(file: Path, present: set[Path]) -> bool:
    return any(file.with_suffix(suffix) in present for suffix in IMAGES)


def _seen(file: Path, stems: Collection[str], alone: bool) -> Table | str | None:
    """The table that a file is, or why it names no images; None if it may be something else."""
    opened = _open(file)
    if opened is None:
        if file.suffix.lower() in _LISTS and (rows := _stems(file, stems)):
            return Table(Columns((_STEM,), (_STEM,)), partial(iter, rows))
    else:
        columns = columns_of(opened.names, opened.values, stems, opened.named)
        table = Table(columns, opened.rows, opened.form)
        names_alone = len(opened.names) == 1 and not opened.named
        if names_alone and not table.tells_of(file.name) and not alone:
            return "it lists images and says nothing of them"
        if PIXELS in opened.values and opened.form is None:
            return PIXELS_ELSEWHERE
        if columns.files or table.of_pixels:
            return table
    return _columns_found(file, opened) if file.suffix.lower() in CERTAIN else None


def _stems(file: Path, stems: Collection[str]) -> Sequence[Row]:
    """The rows of a list of a split that names images without their suffixes, as VOC has them."""
    if split_of(file.name) is None:
        return []
    try:
        text = file.read_text(encoding_of(file))
    except (OSError, ValueError):
        return []
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    known = sum(line.rpartition("/")[2] in stems for line in lines)
    return [{_STEM: line} for line in lines] if 2 * known > len(lines) else []


def _columns_found(file: Path, opened: _Opened | None) -> str:
    """Why a table names no images, with the columns that it has."""
    try:
        names = opened.names if opened else first_line(file)
    except (OSError, ValueError, csv.Error):
        names = ()
    if not any(names):
        return "it is empty"
    found, split = f"its columns {', '.join(names)}", split_of(file.name)
    if names_images([key(name) for name in names]):
        return f"{found} name no image in any row"
    missing = f", or no image is known to be of the split {split}" if split else ""
    return f"none of {found} names images; rename the column of images to file_name{missing}"


def _open(file: Path) -> _Opened | None:
    try:
        stat = file.stat()
        return _opened(file, stat.st_size, stat.st_mtime_ns)
    except (OSError, ValueError, RecursionError, csv.Error) as error:
        if file.suffix.lower() not in CERTAIN:
            return None
        remedy = "save it as UTF-8" if isinstance(error, UnicodeError) else "repair it"
        raise UserError(f"{file} cannot be read as a table ({error}); {remedy}.") from None


@lru_cache(maxsize=32)
def _opened(file: Path, size: int, changed: int) -> _Opened | None:
    """What a file holds, by its size and time of change; None if it is no table of images."""
    suffix = file.suffix.lower()
    if suffix == PARQUET:
        return _opened_parquet(file)
    if suffix in (*JSON_LINES, JSON):
        rows = partial(json_rows, file)
        names = dict.fromkeys(name for row in rows() for name in row)
        return _Opened(tuple(names), True, survey(rows()), rows) if names else None
    form = form_of(file)
    if form is None:
        return None
    rows = partial(rows_of, file, form)
    return _Opened(form.names, form.named, survey(rows()), rows, form)


def _opened_parquet(file: Path) -> _Opened | None:
    """What a Parquet file without image files holds."""
    with opened(file) as table:
        names = tuple(table.names)
        if table.image is not None or not names_images([key(name) for name in names]):
            return None
    rows = partial(parquet_rows, file)
    return _Opened(names, True, survey(rows()), rows)
