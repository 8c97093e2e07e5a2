"""Tables that a plan takes its numbers from: measured action units, and columns of words.

OpenFace (https://github.com/TadasBaltrusaitis/OpenFace/wiki/Output-Format) writes a column `AU12_r`
with intensities from 0 to 5, `AU12_c` with 0 or 1, and `success`, which is 0 where no face was
found. py-feat (https://py-feat.org) writes `AU12` from 0 to 1, and leaves cells empty where it
found no face. The tables of `synfer-rt label` have `AU12` too, and -1 where nothing was read.
"""

from __future__ import annotations

import csv
import math
from collections import Counter
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from synfer_rt.data.datasets.tables.unit_columns import OPENFACE, unit_of
from synfer_rt.errors import UserError, nearest
from synfer_rt.label_lines import NOT_READ
from synfer_rt.vocabulary.facs import ACTION_UNITS

MOST_ROWS = 250_000
"""The most rows that a plan takes: run.json holds all of them."""
_MISSING = ("", "nan", "na", "null", "none")


@dataclass(frozen=True)
class AuTable:
    """Rows of intensities in [0, 1] of action units, each with the line that it is on.

    A row is a text of one number for each of `units`. `labels` has the words of another column for
    each row, if one was asked for. `skipped` rows have no face. `unknown` columns are of units that
    no model here knows, such as the blink AU45.
    """

    units: tuple[str, ...]
    rows: tuple[str, ...]
    lines: tuple[int, ...]
    labels: tuple[str, ...]
    skipped: int
    unknown: tuple[str, ...]


def read_aus(path: Path, label_column: str | None = None) -> AuTable:
    """The action units of a table, as OpenFace, py-feat or `synfer-rt label` writes it.

    Raises UserError for a file that is no such table, for a column that is missing, for a cell that
    is not an intensity, and for a table without rows or with more than MOST_ROWS.
    """
    with _table(path) as (names, lines):
        units, unknown = _units(path, names)
        label_at = None if label_column is None else _column(path, names, label_column)
        success = names.index("success") if "success" in names else None
        rows: list[str] = []
        places: list[int] = []
        labels: list[str] = []
        skipped = 0
        for line, cells in lines:
            found = [cells[at] for at in units.values()]
            if _no_face(found) or (success is not None and _is_zero(cells[success])):
                skipped += 1
                continue
            numbers = [
                _intensity(path, line, names[at], cell)
                for at, cell in zip(units.values(), found, strict=True)
            ]
            rows.append(" ".join(numbers))
            places.append(line)
            labels.append("" if label_at is None else cells[label_at])
            if len(rows) > MOST_ROWS:
                raise UserError(f"{path} has more than {MOST_ROWS} rows; keep some of them.")
    if not rows:
        raise UserError(f"{path} has no row with a face; give a table that has some.")
    return AuTable(tuple(units), tuple(rows), tuple(places), tuple(labels), skipped, unknown)


def read_words(path: Path, column: str) -> tuple[Counter[str], dict[str, int]]:
    """How often each word is in a column, and on which line first; empty cells do not count.

    Raises UserError as `read_aus` does, and for a column without words.
    """
    words: Counter[str] = Counter()
    first: dict[str, int] = {}
    with _table(path) as (names, lines):
        at = _column(path, names, column)
        for line, cells in lines:
            if word := cells[at]:
                words[word] += 1
                first.setdefault(word, line)
    if not words:
        raise UserError(f"{path} has no word in the column {column}; name another column.")
    return words, first


Rows = Generator[tuple[int, list[str]]]


@contextmanager
def _table(path: Path) -> Generator[tuple[list[str], Rows]]:
    """The names of a table's columns, and its rows with their lines. Raises UserError."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            header = file.readline()
            delimiter = max(",;\t", key=header.count)
            file.seek(0)
            reader = csv.reader(file, delimiter=delimiter, skipinitialspace=True)
            names = [name.strip() for name in next(reader, list[str]())]
            if any("\n" in name or "\r" in name for name in names):
                raise UserError(f"{path}, line 1: a column's name does not end; close its quotes.")
            if twice := [name for name, times in Counter(names).items() if name and times > 1]:
                raise UserError(
                    f"{path}, line 1: the column {twice[0]} is there twice; remove one."
                )

            def rows() -> Rows:
                for cells in reader:
                    if not any(map(str.strip, cells)):
                        continue
                    if len(cells) != len(names):
                        raise UserError(
                            f"{path}, line {reader.line_num}: it has {len(cells)} cells, but the "
                            f"first line names {len(names)} columns; correct it."
                        )
                    yield reader.line_num, [cell.strip() for cell in cells]

            yield names, rows()
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror}); name a CSV file.") from None
    except (UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"{path} is not a CSV file in UTF-8 ({error}); save it as one.") from None


def _column(path: Path, names: Sequence[str], wanted: str) -> int:
    if wanted in names:
        return names.index(wanted)
    near = f"; the nearest is {nearest(wanted, names)}" if any(names) else ""
    raise UserError(f"{path}, line 1: there is no column {wanted}{near}.")


def _units(path: Path, names: Sequence[str]) -> tuple[Mapping[str, int], tuple[str, ...]]:
    """The columns of intensities by the unit, those from 0 to 5 before others; and unknown ones."""
    found: dict[str, int] = {}
    unknown: list[str] = []
    for at, name in enumerate(names):
        if held := unit_of(name):
            unit, before = held.name, found.get(held.name)
            if unit not in ACTION_UNITS:
                unknown.append(name)
            elif before is not None and held == unit_of(names[before]):
                raise UserError(
                    f"{path}, line 1: {names[before]} and {name} are the same unit; remove one."
                )
            elif before is None or held.most > 1:
                found[unit] = at
    if not found:
        raise UserError(
            f"{path}, line 1: no column holds intensities of action units; name them AU12_r, "
            "from 0 to 5, as OpenFace does, or AU12, from 0 to 1, as py-feat does."
        )
    return found, tuple(unknown)


def _no_face(cells: Sequence[str]) -> bool:
    """Whether all intensities are missing."""
    return all(cell.lower() in _MISSING or _number(cell) == NOT_READ for cell in cells)


def _is_zero(cell: str) -> bool:
    return _number(cell) == 0 or cell.lower() == "false"


def _number(cell: str) -> float:
    """The number in a cell, NaN for anything else."""
    try:
        return float(cell)
    except ValueError:
        return math.nan


def _intensity(path: Path, line: int, column: str, cell: str) -> str:
    """An intensity from 0 to 1 as text, rounded to four decimals."""
    unit = unit_of(column)
    most = 1.0 if unit is None else unit.most
    value = _number(cell)
    if not 0 <= value <= most:
        remedy = ""
        if most == 1 and 1 < value <= OPENFACE:
            remedy = f", or name columns of intensities from 0 to 5 {column}_r"
        elif 0 <= _number(cell.replace(",", ".")) <= most:
            remedy = ", and write decimals with a point"
        raise UserError(
            f"{path}, line {line}: {column} must be from 0 to {most:g}, got {cell!r}; correct "
            f"it{remedy}."
        )
    return f"{value / most:.4f}".rstrip("0").rstrip(".")
