"""The distributions of action units of a plan: ranges, and rows of a table."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, cast

from synfer_rt import ranges
from synfer_rt.errors import UserError
from synfer_rt.jobs.plan.document import Place
from synfer_rt.jobs.plan.tables import read_aus
from synfer_rt.jobs.plan.values import Values
from synfer_rt.sampling import au_distributions
from synfer_rt.sampling.au_distributions import AuDistribution, AuRanges, AuRows
from synfer_rt.vocabulary import facs

_UNIT = re.compile(r"(au|[lr])\d+\Z", re.IGNORECASE)
OTHERS = "others"
"""The key of the AUs of all classes that are not named."""


def aus_of(values: Values, labels: Sequence[str]) -> dict[str, AuDistribution]:
    """The distribution of each label whose AUs are not drawn from its prototypes."""
    if values.given.get("aus") is None:
        return {}
    if not values.bundle.au_names:
        name = values.bundle.name
        values.stop(("aus",), f"{name} is a model without action units; leave out 'aus'.")
    example = "{AU12: [0.6, 1]} or {happy: {csv: FILE}, others: prototypes}"
    aus = values.mapping(("aus",), example)
    if "csv" in aus or all(map(_UNIT.match, aus)):
        return _for_all(values, ("aus",), labels)
    found: dict[str, AuDistribution] = {}
    by_name: dict[str, list[str]] = {}
    named = {values.label(("aus", name), name): name for name in aus if name != OTHERS}
    if len(named) < len(aus) - (OTHERS in aus):
        values.stop(("aus",), "a class is there twice; write it once.")
    for label, name in named.items():
        if label not in labels:
            place = ("aus", name)
            values.stop(place, f"the plan makes no image of {label}; add it, or leave it out here.")
    for label in labels:
        name = named.get(label, OTHERS)
        if name in aus and aus[name] != "prototypes":
            place = ("aus", name)
            if isinstance(aus[name], str):
                known = "prototypes, {AU12: [0.6, 1]} or {csv: FILE}"
                values.stop(place, f"'{name}' must be {known}, got {aus[name]!r}.")
            by_name.setdefault(name, []).append(label)
    for name, those in by_name.items():
        found |= _for_all(values, ("aus", name), those)
    return found


def _for_all(values: Values, place: Place, labels: Sequence[str]) -> dict[str, AuDistribution]:
    """One distribution for several labels, or the part of a table that is about each."""
    value = values.mapping(place, "{AU12: [0.6, 1]} or {csv: FILE}")
    if "csv" not in value:
        return dict.fromkeys(labels, _ranges(values, place, value))
    path, column = values.table(place)
    table = read_aus(path, column)
    lacking = [unit for unit in table.units if unit not in _told(values)]
    if len(lacking) == len(table.units):
        name = values.bundle.name
        values.stop(place, f"{path} has no unit that {name} knows; give another table.")
    if table.skipped:
        values.notes.append(f"{path}: rows without a face are left out, {table.skipped} in all.")
    if left_out := (*lacking, *table.unknown):
        names = ", ".join(left_out)
        values.notes.append(f"{path}: left out, since {values.bundle.name} lacks them: {names}.")
    if column is None:
        return dict.fromkeys(labels, AuRows(table.units, table.rows))
    rows: dict[str, list[str]] = {label: [] for label in labels}
    for line, word, row in zip(table.lines, table.labels, table.rows, strict=True):
        label = values.table_label(place, line, word)
        if label in rows:
            rows[label].append(row)
    for label in labels:
        if not rows[label]:
            values.stop(place, f"{path} has no row of {label} in the column {column}; add some.")
    return {label: AuRows(table.units, tuple(rows[label])) for label in labels}


def _told(values: Values) -> set[str]:
    """The units that the model is told of, where it has no sides by the whole unit."""
    names = {name.upper() for name in values.bundle.au_names}
    return names | {f"{side}{name[2:]}" for name in names for side in "LR"}


def _ranges(values: Values, place: Place, units: Mapping[str, Any]) -> AuRanges:
    """Ranges of intensities by the model's names of the units."""
    found: dict[str, tuple[float, float]] = {}
    for written, value in units.items():
        at = (*place, written)
        limits = cast("list[Any]", value) if isinstance(value, list) else [value, value]
        if len(limits) != 2 or not all(ranges.is_real(limit, 0, 1) for limit in limits):
            values.stop(at, f"{written} must be a number from 0 to 1 or two, got {value!r}.")
        low, high = map(float, limits)
        if low > high:
            values.stop(at, f"{written} must go from low to high, got {value!r}.")
        try:
            (name,) = facs.in_vocabulary({written: low}, values.bundle.au_names)
        except UserError as error:
            values.stop(at, str(error))
        if name in found:
            values.stop(at, f"{name} is there twice; write it once.")
        found[name] = (low, high)
    if len(found) > au_distributions.DRAWS:
        most = au_distributions.DRAWS
        values.stop(place, f"at most {most} units are drawn, got {len(found)}; leave some out.")
    return AuRanges(found)
