"""Which files are tables that name images, what their columns hold, and their rows by keys."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

from synfer_rt.data.datasets.columns import (
    PIXELS,
    PIXELS_ELSEWHERE,
    Columns,
    by_key,
    columns_of,
    is_image_name,
    key,
    names_images,
    survey,
)
from synfer_rt.data.datasets.items import IMAGES
from synfer_rt.data.datasets.separated import Form, encoding_of, first_line, form_of, rows_of
from synfer_rt.data.datasets.splits import split_of
from synfer_rt.errors import UserError

_JSON_LINES = (".jsonl", ".ndjson")
CERTAIN = (".csv", ".tsv", *_JSON_LINES)
"""Suffixes of what can be nothing but a table."""
TABLES = (*CERTAIN, ".txt", ".lst", ".list", ".json", ".parquet")
"""Suffixes of what may be a table of images."""
_LISTS = (".txt", ".lst", ".list")
"""Suffixes of what may be a list of images by their names without suffix."""
_STEM = "stem"
"""The key of its one column."""

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
        seen = _seen(file, stems, len(files) == 1)
        if isinstance(seen, Table):
            found[file] = seen
        elif seen is not None:
            others[file] = seen
    return found, others


def _seen(file: Path, stems: Collection[str], alone: bool) -> Table | str | None:
    """The table that a file is, or why it names no images; None where it need be no table."""
    opened = _open(file)
    if opened is None:
        if file.suffix.lower() in _LISTS and (rows := _stems(file, stems)):
            return Table(Columns((_STEM,), (_STEM,)), partial(iter, rows))
    else:
        columns = columns_of(opened.names, opened.values, stems, opened.named)
        table = Table(columns, opened.rows, opened.form)
        names_alone = len(opened.names) == 1 and not opened.named
        if names_alone and not table.tells_of(file.name) and not alone:
            return "it lists images, and nothing says what for"
        if PIXELS in opened.values and opened.form is None:
            return PIXELS_ELSEWHERE
        if columns.files or table.of_pixels:
            return table
    return _columns_found(file, opened) if file.suffix.lower() in CERTAIN else None


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
    found, split = f"its columns {', '.join(names)}", split_of(file.name)
    if names_images([key(name) for name in names]):
        return f"{found} have no row that names an image"
    known = f"; so nothing is known to be of the split {split}" if split else ""
    return f"{found}: none names images; call that column file_name{known}"


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

    from synfer_rt.data.datasets.parquet import names_of, rows_without_images

    try:
        names = names_of(file)
    except pa.ArrowException:
        return None
    if names is None or not names_images([key(name) for name in names]):
        return None
    rows = partial(rows_without_images, file)
    return _Opened(names, True, survey(rows()), rows)
