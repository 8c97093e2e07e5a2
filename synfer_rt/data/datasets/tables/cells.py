"""Rows of tables and JSON objects: their cells by key, as text, and the values of a column."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from synfer_rt.data.datasets.items import IMAGES
from synfer_rt.data.datasets.tables.column_names import BOXES, LABELS, key
from synfer_rt.data.datasets.untyped import is_list, is_mapping

SURVEYED = 20_000
"""How many rows of a table, from the first, tell what its columns hold."""
_DISTINCT = 100
"""How many values of a column tell what it holds."""

Row = Mapping[str, object]
"""A row of a table: its cells by the keys of their columns."""


def by_key(row: Mapping[Any, object]) -> dict[str, object]:
    """A JSON object by its keys. A label or box in an object inside it fills in a missing one."""
    cells = {key(str(name)): cell for name, cell in row.items()}
    for inner in filter(is_mapping, list(cells.values())):
        named = {key(str(name)): cell for name, cell in inner.items()}
        for name in (name for name in (*LABELS, *BOXES) if name in named):
            cells.setdefault(name, named[name])
    return cells


def text(value: object) -> str:
    """A cell as text without spaces around it. Missing values and lists of several are empty."""
    if isinstance(value, str):
        return value.strip()
    if is_list(value) and len(value) == 1:
        value = value[0]
    if value is None or isinstance(value, (list, tuple, dict, bytes)) or value != value:
        return ""
    return str(value).strip()


def several(cell: object) -> str:
    """A list of several values as text; empty for any other cell."""
    return ", ".join(map(str, cell)) if is_list(cell) and len(cell) > 1 else ""


def is_image_name(cell: str) -> bool:
    """Whether a cell ends as the name of an image file does, and is no address in the web."""
    dot = cell.rfind(".")
    return dot > 0 and "://" not in cell and cell[dot:].partition("#")[0].lower() in IMAGES


def survey(rows: Iterable[Row]) -> dict[str, set[str]]:
    """The first distinct values of each column, without empty cells, by its key.

    After SURVEYED rows, only columns that have been empty so far are looked at.
    """
    values: dict[str, set[str]] = {}
    for number, row in enumerate(rows):
        for name, cell in row.items():
            seen = values.setdefault(name, set())
            full = len(seen) >= _DISTINCT or (number >= SURVEYED and seen)
            if not full and (value := text(cell) or (several(cell) if name in LABELS else "")):
                seen.add(value)
    return values
