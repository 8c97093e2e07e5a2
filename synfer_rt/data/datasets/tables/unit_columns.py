"""Columns of action units in tables of images.

OpenFace (https://github.com/TadasBaltrusaitis/OpenFace/wiki/Output-Format) writes `AU12_r` with
intensities from 0 to 5, and `success`, which is 0 where no face was found. py-feat
(https://py-feat.org) writes `AU12` from 0 to 1. So does `synfer-rt label`, with -1 where nothing
was read. Records of datasets have all units in one object, `aus`.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from synfer_rt.data.datasets.tables.cells import Row, text
from synfer_rt.data.datasets.untyped import is_mapping
from synfer_rt.label_lines import NOT_READ
from synfer_rt.vocabulary.facs import ACTION_UNITS

OBJECT = "aus"
"""The key of an object with the intensities of all units."""
_SUCCESS = "success"
_NAME = re.compile(r"(?:aus\W?)?(AU|[LR])[\W_]?0*(\d{1,2})[\W_]?(r)?\Z", re.IGNORECASE)
OPENFACE = 5.0
"""The intensity that is 1 here."""
_DECIMALS = 4


@dataclass(frozen=True)
class Unit:
    """The action unit of a column, and the number there that is the highest intensity."""

    name: str
    most: float


def unit_of(column: str) -> Unit | None:
    """What a column of this name, or key, holds; None unless it holds intensities of a unit."""
    found = _NAME.match(column)
    if found is None:
        return None
    return Unit(f"{found[1].upper()}{found[2]}", OPENFACE if found[3] else 1.0)


@dataclass(frozen=True)
class UnitColumns:
    """The columns that hold intensities, by their keys."""

    units: Mapping[str, Unit]

    def of(self, row: Row) -> Mapping[str, float] | str | None:
        """The intensities in [0, 1] that a row says by unit; None if none, or what is wrong.

        A unit whose cell is empty or -1 is left out.
        """
        if text(row.get(_SUCCESS)) in ("0", "0.0", "False", "false"):
            return None
        found: dict[str, float] = {}
        for column, unit, cell in self._cells(row):
            written = text(cell)
            value = _number(written)
            if not written or written.lower() == "nan" or value == NOT_READ:
                continue
            if not 0 <= value <= unit.most:
                return _problem(column, unit, written)
            found[unit.name] = round(value / unit.most, _DECIMALS)
        return found or None

    def _cells(self, row: Row) -> Iterator[tuple[str, Unit, object]]:
        """Each column of a unit with its cell in a row."""
        nested = row.get(OBJECT)
        if is_mapping(nested):
            for name, cell in nested.items():
                unit = unit_of(str(name))
                if unit is not None and unit.name in ACTION_UNITS:
                    yield str(name), unit, cell
        for column, unit in self.units.items():
            yield column, unit, row.get(column)


def unit_columns(columns: Iterable[str]) -> UnitColumns | None:
    """Those of the columns with these keys that hold intensities; None without any.

    Of two columns of a unit the one from 0 to 5 counts, as it is the finer one. Columns such as L1
    and R1 are sides of units only beside columns of whole units.
    """
    named = list(columns)
    found: dict[str, tuple[str, Unit]] = {}
    for column in named:
        unit = unit_of(column)
        if unit is None or unit.name not in ACTION_UNITS:
            continue
        if unit.name not in found or unit.most > found[unit.name][1].most:
            found[unit.name] = column, unit
    if not any(name.startswith("AU") for name in found):
        found = {}
    if not found and OBJECT not in named:
        return None
    return UnitColumns(dict(found.values()))


def _number(cell: str) -> float:
    try:
        return float(cell)
    except ValueError:
        return math.nan


def _problem(column: str, unit: Unit, written: str) -> str:
    wide = unit.most == 1 and 1 < _number(written) <= OPENFACE
    remedy = f", or name columns of intensities from 0 to 5 {unit.name}_r" if wide else ""
    return (
        f"its column {column} must be from 0 to {unit.most:g}, but says {written!r}; correct "
        f"it{remedy}"
    )
