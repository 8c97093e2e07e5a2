"""Whether images show the requested action units, and no others.

A network that was trained on renders reads the units. It is measured too, on held-out renders,
because no measurement can be better than its reading. `read` are its outputs [..., 41].
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
from scipy.stats import spearmanr

from reference.evaluation import statistics
from reference.faces import rig
from synfer_rt.sampling.requests import Request, Requests
from synfer_rt.vocabulary.facs import OPENGRAPHAU_41

_COLUMN = {name: i for i, name in enumerate(OPENGRAPHAU_41)}
_DRAWN = tuple(f"AU{n}" for n in rig.ACTION_UNITS if f"AU{n}" in _COLUMN)
MAIN = tuple(f"AU{n}" for n in (1, 2, 4, 5, 6, 9, 10, 12, 15, 20, 25, 26))
FURTHER = tuple(unit for unit in _DRAWN if unit not in MAIN)
"""The other units that the renderer draws."""
STRENGTHS = np.linspace(0, 1, 6)
GOALS = {"main": 0.8, "further": 0.6}
"""Rank correlations from which a unit counts as controlled."""
PRESENT = 0.3
"""Intensity from which an action unit counts as shown."""
ONE_SIDED = ("AU12", "AU14")
SIDES = {"none": (0.0, 0.0), "left": (1.0, 0.0), "right": (0.0, 1.0), "both": (1.0, 1.0)}
"""Intensities of the subject's left and right."""
_A_STRENGTH = 300


def without_expression(prompt: str) -> str:
    """A sentence of `prompts.describe` without its expression, which could contradict the AUs."""
    return re.sub(r" with an? \w+ face\b", "", prompt)


def _faces(requests: Requests, count: int) -> list[Request]:
    return [replace(base, prompt=without_expression(base.prompt)) for base in requests[:count]]


def sweeps(requests: Requests, units: Sequence[str], faces: int) -> list[Request]:
    """Every unit at every one of STRENGTHS on the same `faces` faces, nothing else."""
    return [
        replace(face, aus={unit: float(strength)})
        for unit in units
        for face in _faces(requests, faces)
        for strength in STRENGTHS
    ]


def sweep_correlations(read: np.ndarray, units: Sequence[str]) -> dict[str, float]:
    """Spearman's rank correlation of requested and read intensity, per unit.

    `read` is [units, faces, strengths, 41], in the order of `sweeps`.
    """
    requested = np.broadcast_to(STRENGTHS, read.shape[1:3]).ravel()
    return {
        unit: _rank_correlation(requested, read[i, ..., _COLUMN[unit]].ravel())
        for i, unit in enumerate(units)
    }


def sweep_half_widths(read: np.ndarray, units: Sequence[str]) -> dict[str, float]:
    """Half-widths of `sweep_correlations`, by a bootstrap over the faces."""

    def of(unit: int, faces: np.ndarray) -> float:
        return sweep_correlations(read[unit : unit + 1, faces], [units[unit]])[units[unit]]

    return {
        unit: statistics.bootstrap(partial(of, i), read.shape[1]) for i, unit in enumerate(units)
    }


def changes(read: np.ndarray, units: Sequence[str]) -> dict[str, tuple[float, float]]:
    """How the reading changes from a request of a unit at 0 to one at 1: means over the faces.

    For each unit its own change, and the mean absolute change of the others among `units`. `read`
    is as in `sweep_correlations`.
    """
    change = read[:, :, -1] - read[:, :, 0]
    columns = [_COLUMN[unit] for unit in units]
    return {
        unit: (
            float(change[i, :, _COLUMN[unit]].mean()),
            float(np.abs(change[i][:, [c for c in columns if c != _COLUMN[unit]]]).mean()),
        )
        for i, unit in enumerate(units)
    }


def reader_correlations(
    read: np.ndarray, true: np.ndarray, units: Sequence[str]
) -> dict[str, float]:
    """Spearman's correlation of true and read intensity in renders [n, 41], per unit.

    Most renders do not show a given unit. For comparison with a sweep, renders are drawn with
    replacement, equally many for each of STRENGTHS that occurs (rounded to the nearest).
    """
    rng = np.random.default_rng(0)
    report = {}
    for unit in units:
        asked, seen = true[:, _COLUMN[unit]], read[:, _COLUMN[unit]]
        nearest = np.abs(asked[:, None] - STRENGTHS).argmin(1)
        rows = np.concatenate(
            [rng.choice(np.flatnonzero(nearest == k), _A_STRENGTH) for k in np.unique(nearest)]
        )
        report[unit] = _rank_correlation(asked[rows], seen[rows])
    return report


def sides(requests: Requests, faces: int) -> list[Request]:
    """Every unit of ONE_SIDED on every one of SIDES of the same `faces` faces, nothing else."""
    return [
        replace(face, aus={f"L{unit[2:]}": left, f"R{unit[2:]}": right})
        for unit in ONE_SIDED
        for face in _faces(requests, faces)
        for left, right in SIDES.values()
    ]


def left_minus_right(intensities: np.ndarray, unit: str) -> np.ndarray:
    """How much stronger a unit is on the subject's left: [..., 41] to [...] in [-1, 1]."""
    return intensities[..., _COLUMN[f"L{unit[2:]}"]] - intensities[..., _COLUMN[f"R{unit[2:]}"]]


def asymmetry(read: np.ndarray) -> dict[str, dict]:
    """Pearson's correlation of requested and read left minus right, per unit of ONE_SIDED.

    `read` is [units, faces, sides, 41], in the order of `sides`. Also the mean read difference
    for each of SIDES.
    """
    asked = np.array([left - right for left, right in SIDES.values()])
    report = {}
    for unit, outputs in zip(ONE_SIDED, read, strict=True):
        seen = left_minus_right(outputs, unit)
        correlation = np.corrcoef(np.broadcast_to(asked, seen.shape).ravel(), seen.ravel())[0, 1]
        means = dict(zip(SIDES, seen.mean(0).tolist(), strict=True))
        report[unit] = {"correlation": float(correlation), "left_minus_right": means}
    return report


def reader_asymmetry(read: np.ndarray, true: np.ndarray) -> dict[str, float]:
    """Pearson's correlation of true and read left minus right in renders [n, 41] with the unit."""
    report = {}
    for unit in ONE_SIDED:
        shown = true[:, _COLUMN[unit]] > 0
        given, found = (left_minus_right(x[shown], unit) for x in (true, read))
        report[unit] = float(np.corrcoef(given, found)[0, 1])
    return report


def au_agreement(requested: np.ndarray, read: np.ndarray) -> np.ndarray:
    """Share of MAIN that are shown if and only if they were requested, float [n].

    Both are intensities [n, 41].
    """
    columns = [_COLUMN[unit] for unit in MAIN]
    return ((requested >= PRESENT) == (read >= PRESENT))[:, columns].mean(1)


def _rank_correlation(one: np.ndarray, other: np.ndarray) -> float:
    """Spearman's, of two vectors of one length."""
    found: Any = spearmanr(one, other)  # of a class that scipy makes at run time
    return float(found.statistic)
