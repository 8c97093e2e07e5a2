"""Tables of separated values as people write them: any separator, with or without a header."""

from __future__ import annotations

import codecs
import csv
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path

from synfer_rt.data.datasets.columns import is_image_name, key, names_images, survey
from synfer_rt.data.datasets.items import IMAGES

_SEPARATORS = (",", ";", "\t", "|")
_HEAD = 50
"""Lines that are looked at to see how a table is written."""
_LONGEST_HEAD = 1 << 20
_FER_PLUS = (
    "image name", "face box", "neutral", "happiness", "surprise", "sadness", "anger", "disgust",
    "fear", "contempt", "unknown", "NF",
)  # fmt: skip
"""The columns of FER+'s label.csv files, which have no header (Barsoum et al. 2016)."""
_AFFECTNET = (
    "subDirectory_filePath", "face_x", "face_y", "face_width", "face_height", "facial_landmarks",
    "expression", "valence", "arousal",
)  # fmt: skip
"""The columns of AffectNet's CSV files, of which validation.csv has no header."""
_EXPW = (
    "image name", "face id", "face box top", "face box left", "face box right", "face box bottom",
    "confidence", "expression label",
)  # fmt: skip
"""The columns of ExpW's label.lst (Zhang et al. 2017), which has no header."""
_EXPW_FILE = "label.lst"
_NAME = "|".join(re.escape(suffix) for suffix in sorted(IMAGES))
_NAME_AND_REST = re.compile(rf"\s*(.*?(?:{_NAME}))\s+(\S.*)", re.IGNORECASE)


@dataclass(frozen=True)
class Form:
    """How a file of separated values is written.

    `separator` is a character, or a space for any number of them. `names` are its columns'; `named`
    says whether they are its own or its dataset's, not numbers. `skipped` lines come before its
    rows. `scheme` is that of a dataset which is known by the form of its list.
    """

    encoding: str
    separator: str
    names: tuple[str, ...]
    named: bool
    skipped: int
    scheme: str | None = None


def form_of(file: Path) -> Form | None:
    """How `file` is written, or None for what does not look like a table that names images.

    A header counts, and so do cells that are names of image files. Raises OSError and ValueError
    for what is no text.
    """
    encoding = encoding_of(file)
    with file.open(encoding=encoding, newline="") as stream:
        text = stream.read(_LONGEST_HEAD)
    lines = [line for line in text.splitlines() if line.strip()][: _HEAD + 1]
    if len(text) == _LONGEST_HEAD and len(lines) > 1:
        lines.pop()  # it may be cut
    excel = bool(lines) and re.fullmatch(r'"?sep=.?"?', lines[0].strip().lower()) is not None
    lines = [re.sub(r"^#\s*", "", line) if i == 0 else line for i, line in enumerate(lines[excel:])]
    loose = file.suffix.lower() not in (".csv", ".tsv")
    blank = [Form(encoding, separator, (), True, int(excel)) for separator in (*_SEPARATORS, " ")]
    *forms, spaced = [_named(file, form, lines, even=loose) for form in blank]
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
    """UTF-16 where a mark says so, as Excel writes it; else UTF-8 with or without a mark."""
    with file.open("rb") as stream:
        start = stream.read(2)
    return "utf-16" if start in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE) else "utf-8-sig"


def cells_of(line: str, separator: str) -> list[str]:
    """The cells of a line of a table."""
    return next(_cells([line], separator), [])


def rows_of(file: Path, form: Form) -> Iterator[dict[str, str]]:
    """The rows of a table by the keys of its columns. Raises OSError, ValueError and csv.Error."""
    keys = [key(name) for name in form.names]
    with file.open(encoding=form.encoding, newline="") as stream:
        lines = (line for line in stream if line.strip())
        for row in islice(_cells(lines, form.separator), form.skipped, None):
            yield dict(zip(keys, row, strict=False))


def _cells(lines: Iterable[str], separator: str) -> Iterator[list[str]]:
    if separator == " ":
        return map(_spaced, lines)
    return csv.reader(lines, delimiter=separator, skipinitialspace=separator != "\t")


def _spaced(line: str) -> list[str]:
    """The cells of a line between spaces, of which the name of an image may have some, too."""
    named = _NAME_AND_REST.fullmatch(line.rstrip())
    return [named[1], *named[2].split()] if named else line.split()


def _named(file: Path, form: Form, lines: Sequence[str], even: bool) -> Form | None:
    """The form with the names of its columns, or None where they name no images.

    `even` wants rows of one length, as a text that is no table seldom has.
    """
    try:
        table = [[cell.strip() for cell in row] for row in _cells(lines, form.separator) if row]
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
    names = tuple(first)
    return replace(form, names=names, skipped=form.skipped + 1)


def _without_header(file: Path, form: Form, table: Sequence[Sequence[str]]) -> Form | None:
    columns = list(zip(*table, strict=False))
    images = [i for i, column in enumerate(columns) if all(map(is_image_name, column))]
    if len(images) != 1 or len({len(row) for row in table}) > 1:
        return None
    if len(columns) == len(_FER_PLUS) and _is_fer_plus(table):
        return replace(form, names=_FER_PLUS)
    if len(columns) == len(_AFFECTNET) and _is_affectnet(table):
        return replace(form, names=_AFFECTNET)
    if form.separator == " " and len(columns) == len(_EXPW) and _is_expw(file, table):
        return replace(form, names=_EXPW, scheme="fer2013-csv")
    names = tuple(f"column {i}" for i in range(1, len(columns) + 1))
    return replace(form, names=names, named=False)


def _is_fer_plus(table: Sequence[Sequence[str]]) -> bool:
    """Whether rows are an image, a box and ten numbers of votes."""
    return all(
        re.fullmatch(r"\(\d+(, ?\d+){3}\)", row[1]) and all(cell.isdigit() for cell in row[2:])
        for row in table
    )


def _is_affectnet(table: Sequence[Sequence[str]]) -> bool:
    """Whether rows are an image, a box, landmarks between semicolons, a class and two numbers."""
    try:
        numbers = [[*map(int, row[1:5]), int(row[6]), *map(float, row[7:])] for row in table]
    except ValueError:
        return False
    return all(";" in row[5] for row in table) and all(0 <= row[4] <= 10 for row in numbers)


def _is_expw(file: Path, table: Sequence[Sequence[str]]) -> bool:
    """Whether rows are an image, a face's number, its box, a confidence and one of 7 classes.

    In a file of another name than the dataset's the numbers must make boxes, too.
    """
    try:
        numbers = [[*map(int, row[1:6]), float(row[6]), int(row[7])] for row in table]
    except ValueError:
        return False
    boxes = all(left < right and top < bottom for _, top, left, right, bottom, _, _ in numbers)
    named = file.name.lower() == _EXPW_FILE
    return (named or boxes) and all(0 <= row[-1] < 7 for row in numbers)
