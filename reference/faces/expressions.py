"""Expressions of the reference faces: the classes, and random action-unit combinations."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations

import numpy as np

from reference.faces.rig import ACTION_UNITS, ONE_SIDED, Aus, symmetric
from synfer_rt.vocabulary import au_prototypes, label_schemes

CLASSES = label_schemes.scheme("affectnet-8")

_MOUTH_SHAPES = (12, 15, 18, 20, 22, 23, 24)
"""A random combination holds at most one of these."""

_FORBIDDEN = frozenset(
    frozenset(pair)
    for pair in (
        *combinations(_MOUTH_SHAPES, 2),
        (2, 4), (9, 1), (9, 2), (43, 5), (43, 7), (43, 6), (26, 27), (5, 6),
        (24, 10), (24, 16), (24, 25), (24, 26), (24, 27),
        (23, 10), (23, 16), (23, 25), (23, 26), (23, 27),
        (18, 10), (18, 14), (18, 16), (18, 25), (18, 26), (18, 27),
        (22, 14), (22, 16), (22, 26), (22, 27), (22, 17),
        (17, 16), (17, 25), (17, 26), (17, 27), (15, 27), (14, 27), (14, 26), (12, 17),
    )
)  # fmt: skip
_RANDOM_WEIGHT = {
    2: 1.3, 5: 1.5, 6: 1.5, 7: 1.5, 14: 1.3, 15: 1.3, 16: 1.7, 17: 1.5, 18: 1.7,
    20: 2.0, 22: 1.7, 23: 2.0, 24: 1.7, 27: 0.7,
}  # fmt: skip
"""Relative frequency, 1 if absent: units that are hard to see are drawn more often."""
_LEAST = {27: 0.25}
"""Lowest intensity of a unit that is drawn alone, 0 if absent."""
_SINGLE_SHARE = 0.35
"""Share of the random combinations that are one unit alone."""


def compatible(a: int, b: int) -> bool:
    """Whether two action units may act together in a random combination."""
    return frozenset((a, b)) not in _FORBIDDEN


def sample_expression(rng: np.random.Generator, label: str) -> Aus:
    """Action units of one face that shows `label`, one of CLASSES."""
    aus: Aus = dict(au_prototypes.draw(label, rng.random(au_prototypes.DRAWS).tolist()))
    # No face is quite still: half of the images show a trace of one unrelated unit.
    if rng.random() < 0.5:
        au = int(rng.choice(ACTION_UNITS))
        if au not in aus and au not in (26, 27, 43) and all(compatible(au, b) for b in aus):
            aus |= symmetric({au: rng.uniform(0, 0.12)})
    return aus


def _draw_sides(rng: np.random.Generator, au: int, value: float, share: float) -> Aus:
    """`value` on both sides; an AU that has sides is, at `share`, mostly on one of them."""
    if au in ONE_SIDED and rng.random() < share:
        weak = value * rng.uniform(0, 0.2)
        return {au: (value, weak) if rng.random() < 0.5 else (weak, value)}
    return symmetric({au: value})


def _draw_alone(rng: np.random.Generator, au: int) -> Aus:
    return _draw_sides(rng, au, rng.uniform(_LEAST.get(au, 0), 1), 0.4)


def sample_random(rng: np.random.Generator, alone: Sequence[int] = ()) -> Aus:
    """Action units of no class: one of any intensity, or two to five compatible ones at .25..1.

    With `alone`: exactly one of these units, all equally often.
    """
    if alone:
        return _draw_alone(rng, int(rng.choice(alone)))
    weights = np.array([_RANDOM_WEIGHT.get(au, 1.0) for au in ACTION_UNITS])
    order = rng.choice(
        ACTION_UNITS, len(ACTION_UNITS), replace=False, p=weights / weights.sum()
    ).tolist()
    if rng.random() < _SINGLE_SHARE:
        return _draw_alone(rng, order[0])
    count = rng.integers(2, 6)
    chosen: list[int] = []
    for au in order:
        if len(chosen) < count and all(compatible(au, b) for b in chosen):
            chosen.append(au)
    aus: Aus = {}
    for au in chosen:
        aus |= _draw_sides(rng, au, rng.uniform(0.25, 1), 0.4)
    return aus
