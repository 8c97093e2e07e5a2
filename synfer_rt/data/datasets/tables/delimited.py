"""Delimited text: tables with any separator, with or without a header."""

from __future__ import annotations

import codecs
import csv
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path

from synfer_rt.data.datasets.items import IMAGES
from synfer_rt.data.datasets.tables.cells import is_image_name, survey
from synfer_rt.data.datasets.tables.column_names import key
from synfer_rt.data.datasets.tables.columns import names_images
from synfer_rt.data.datasets.tables.published import published

_SEPARATORS = (",", ";", "\t", "|")
_HEAD = 50
"""How many lines, from the first, tell how a table is written."""
_LONGEST_HEAD = 1 << 20
"""How many characters they have at most."""
_SUFFIX = "|".join(re.escape(suffix) for suffix in sorted(IMAGES))
_NAME_AND_REST = re.compile(rf"\s*(.*?(?:{_SUFFIX}))\s+(\S.*)", re.IGNORECASE)


@dataclass(frozen=True)
class Form:
    """How a table of delimited text is written.

    `separator` is a character; a space stands for any number of spaces. `names` are the names of
    the columns. They are numbers if `named` is false: the table has no header and is of no
    published dataset. `skipped` lines come before the rows. `scheme` is the label scheme of a
    published dataset.
    """

    encoding: str
    separator: str
    names: tuple[str, ...]
    named: bool
    skipped: int
    scheme: str | None = None


def form_of(file: Path) -> Form | None:
    """How `file` is written, or None if it does not look like a table of images.

    It does if it has a header with a column of images, or a column of names of image files. Raises
    OSError if the file cannot be read and ValueError if it is not text.
    """
    encoding = encoding_of(file)
    with file.open(encoding=encoding, newline="") as stream:
        text = stream.read(_LONGEST_HEAD)
    lines = [line for line in text.splitlines() if line.strip()][: _HEAD + 1]
    if len(text) == _LONGEST_HEAD and len(lines) > 1:
        lines.pop()  # it may be cut
    excel = bool(lines) and re.fullmatch(r'"?sep=.?"?', lines[0].strip().lower()) is not None
    lines = [re.sub(r"^#\s*", "", line) if i == 0 else line for i, line in enumerate(lines[excel:])]
    free = file.suffix.lower() not in (".csv", ".tsv")
    blank = [Form(encoding, separator, (), True, int(excel)) for separator in (*_SEPARATORS, " ")]
    *forms, spaced = [_named(file, form, lines, even=free) for form in blank]
    found = [form for form in forms if form is not None]
    if spaced is not None and all(len(form.names) == 1 for form in found):
        found = [spaced]
    return max(found, key=lambda form: len(form.names), default=None)


def first_line(file: Path) -> tuple[str, ...]:
    """The cells of a file's first line, as if they were the names of columns."""
    with file.open(encoding=encoding_of(file), newline="") as stream:
        line = stream.readline(_LONGEST_HEAD)
    cells = (cells_of(line, separator) for separator in _SEPARATORS)
    return tuple(cell.strip() for cell in max(cells, key=len))


def encoding_of(file: Path) -> str:
    """UTF-16 if the file begins with its mark, as Excel writes it; else UTF-8."""
    with file.open("rb") as stream:
        start = stream.read(2)
    return "utf-16" if start in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE) else "utf-8-sig"


def cells_of(line: str, separator: str) -> list[str]:
    """The cells of a line of a table. Raises csv.Error."""
    for row in _rows([line], separator):
        return row
    return []


def rows_of(file: Path, form: Form) -> Iterator[dict[str, str]]:
    """The rows of a table by the keys of its columns. Raises OSError, ValueError and csv.Error."""
    keys = [key(name) for name in form.names]
    with file.open(encoding=form.encoding, newline="") as stream:
        lines = (line for line in stream if line.strip())
        for row in islice(_rows(lines, form.separator), form.skipped, None):
            yield dict(zip(keys, row, strict=False))


def _rows(lines: Iterable[str], separator: str) -> Iterator[list[str]]:
    if separator == " ":
        return map(_spaced, lines)
    return csv.reader(lines, delimiter=separator, skipinitialspace=separator != "\t")


def _spaced(line: str) -> list[str]:
    """The cells of a line between spaces. The name of an image may have spaces, too."""
    named = _NAME_AND_REST.fullmatch(line.rstrip())
    return [named[1], *named[2].split()] if named else line.split()


def _named(file: Path, form: Form, lines: Sequence[str], even: bool) -> Form | None:
    """The form with the names of its columns, or None if they do not name images.

    With `even`, all rows must have the same length, as text that is no table
    seldom has.
    """
    try:
        table = [[cell.strip() for cell in row] for row in _rows(lines, form.separator) if row]
    except csv.Error:
        return None
    if not table or ((even or form.separator == " ") and len({len(row) for row in table}) > 1):
        return None
    first, *rest = table
    if any(map(is_image_name, first)):
        return _without_header(file, form, table)
    keys = [key(cell) for cell in first]
    values = survey(dict(zip(keys, row, strict=False)) for row in rest)
    cells = [values[name] for name in keys if values.get(name)]
    if not names_images(keys) and not any(all(map(is_image_name, column)) for column in cells):
        return None
    return replace(form, names=tuple(first), skipped=form.skipped + 1)


def _without_header(file: Path, form: Form, table: Sequence[Sequence[str]]) -> Form | None:
    """The form with the columns of a published dataset, or with numbers; None if it is no table."""
    columns = list(zip(*table, strict=False))
    images = [i for i, column in enumerate(columns) if all(map(is_image_name, column))]
    if len(images) != 1 or len({len(row) for row in table}) > 1:
        return None
    if (known := published(file, form.separator, table)) is not None:
        return replace(form, names=known.names, scheme=known.scheme)
    names = tuple(f"column {i}" for i in range(1, len(columns) + 1))
    return replace(form, names=names, named=False)
