"""From FACS action units to face-unit and wrinkle weights.

A set of action units is a dict ``{number: (left, right)}`` of intensities 0..1; left is the
SUBJECT's left, as in FACS. AU 43 (eye closure) is in the rig though not in OpenGraphAU's 41.
"""

from __future__ import annotations

import numpy as np

from synfer_rt.vocabulary.facs import OPENGRAPHAU_41

Aus = dict[int, tuple[float, float]]

ACTION_UNITS = (1, 2, 4, 5, 6, 7, 9, 10, 12, 14, 15, 16, 17, 18, 20, 22, 23, 24, 25, 26, 27, 43)
"""The action units the rig can move."""

ONE_SIDED = frozenset({1, 2, 4, 6, 10, 12, 14})
"""Units whose sides OpenGraphAU's vector names; all others are kept symmetric."""


def _sides(**weights: float) -> dict[str, float]:
    """Expand a unit name with ``SIDE`` to its left and right form."""
    out = {}
    for name, weight in weights.items():
        out[f"{name}Left"] = out[f"{name}Right"] = weight
    return out


def _both(weights: dict[str, float]) -> dict[str, float]:
    return {n.format(side): w for n, w in weights.items() for side in ("left", "right")}


_UNITS_OF_AU: dict[int, dict[str, float]] = {
    1: {
        "browInnerUp": 1.0,
        **_both({"mh:eyebrows-{}-inner-up": 0.5, "sculpt:brow-oblique-{}": 0.8}),
    },
    2: {
        **_sides(browOuterUp=1.0),
        **_both({"mh:eyebrows-{}-extern-up": 0.3, "sculpt:brow-outer-{}": 0.6})
        | _both({"sculpt:brow-raise-{}": 0.15}),
    },
    4: {**_sides(browDown=1.2), **_both({"sculpt:corrugator-{}": 1.0})},
    5: {**_sides(eyeWide=1.5), **_both({"mh:eye-{}-opened-up": 0.35})},
    6: {**_sides(cheekSquint=1.2, eyeSquint=0.5), **_both({"sculpt:cheek-raise-{}": 1.0})},
    7: _sides(eyeSquint=1.3, eyeBlink=0.2),
    9: {
        **_sides(noseSneer=1.5, mouthUpperUp=0.35, browDown=0.2, cheekSquint=1.0, eyeSquint=0.45),
        **_both({"mh:nose-{}-elevation": 0.5, "sculpt:corrugator-{}": 0.3})
        | _both({"sculpt:cheek-raise-{}": 1.0}),
    },
    10: {
        **_sides(mouthUpperUp=1.3, cheekSquint=0.5),
        **_both({"mh:nose-{}-elevation": 0.3, "mh:nose-{}-dilatation": 0.3})
        | _both({"sculpt:cheek-raise-{}": 0.5}),
    },
    12: {**_sides(mouthSmile=1.05), **_both({"mh:mouth-corner-puller-{}": 0.4})},
    14: _sides(mouthDimple=1.5, mouthSmile=0.1),
    15: _sides(mouthFrown=1.4),
    16: _sides(mouthLowerDown=1.25),
    17: {"mouthShrugLower": 1.4, "mouthShrugUpper": 0.7},
    18: {"mouthPucker": 1.5},
    20: {
        **_sides(mouthStretch=1.4),
        **_both({"sculpt:lip-stretch-{}": 1.0}),
        "mouthRollLower": 0.25,
        "mouthRollUpper": 0.25,
    },
    22: {"mouthFunnel": 1.15},
    23: {
        **_sides(mouthPress=0.3),
        "mouthRollLower": 0.85,
        "mouthRollUpper": 0.8,
        "mouthPucker": 0.6,
    },
    24: {
        **_sides(mouthPress=1.1, mouthFrown=0.1),
        "mouthRollLower": 0.7,
        "mouthRollUpper": 0.6,
        "mouthPucker": 0.25,
    },
    25: {**_sides(mouthLowerDown=0.8, mouthUpperUp=0.65), "jawOpen": 0.06},
    26: {"jawOpen": 0.42},
    27: {"jawOpen": 1.0, "mouthPucker": 0.9},
    43: _sides(eyeBlink=1.0),
}
_CURVE = {(27, "jawOpen"): 1 / 4, (27, "mouthPucker"): 1 / 3}
"""Exponent of an action unit's intensity in a face unit's weight, 1 if absent.

AU 26 lets the jaw fall, and AU 27 pulls it open. Even a weak AU 27 therefore opens the mouth well
beyond AU 26, and narrows it, as AU 26 never does. The gap leaves room for guidance that strengthens
AU 26; faces should not show a mere trace of AU 27."""
_LIMIT = {"jawOpen": 1.0, "eyeBlinkLeft": 1.0, "eyeBlinkRight": 1.0}

_WRINKLES_OF_AU: dict[int, dict[str, float]] = {
    1: {"forehead_inner": 0.85},
    2: {"forehead_outer": 0.9},
    4: {"glabella": 1.25},
    6: {"crow_feet": 1.0, "cheek_furrow": 1.0, "nasolabial": 0.15},
    7: {"crow_feet": 0.3, "lower_lid": 1.2},
    9: {"nose_bridge": 1.3, "nasolabial": 0.6, "glabella": 0.3, "cheek_furrow": 0.5},
    10: {"nasolabial": 1.0, "cheek_furrow": 0.35},
    12: {"nasolabial": 0.75},
    14: {"dimple": 1.0},
    15: {"mouth_corner": 0.9},
    16: {"mentolabial": 1.0},
    17: {"chin": 1.3, "mentolabial": 0.8},
    20: {"lip_side": 1.0, "mentolabial": 0.3},
    23: {"lip_rim": 0.8},
    24: {"lip_rim": 0.8, "mentolabial": 0.6},
}


def symmetric(intensities: dict[int, float]) -> Aus:
    """Same intensity on both sides."""
    return {number: (value, value) for number, value in intensities.items()}


def _side_of(unit: str) -> int | None:
    """0 for a left unit, 1 for a right one, None for a unit of both sides."""
    lower = unit.lower()
    return 0 if "left" in lower else 1 if "right" in lower else None


def face_units(aus: Aus, jaw: float = 1.0) -> dict[str, float]:
    """Face-unit weights of a set of action units, interactions resolved.

    jaw: how far AU 26 lets the jaw fall, as a multiple of the usual distance.
    """
    weights: dict[str, float] = {}
    for number, sides in aus.items():
        for unit, gain in _UNITS_OF_AU[number].items():
            side = _side_of(unit)
            amount = max(sides) if side is None else sides[side]
            # A one-sided AU 1 must not lift the middle of the brow fully.
            if side is None and number == 1:
                amount = sum(sides) / 2
            if number == 26:
                amount *= jaw
            weights[unit] = weights.get(unit, 0.0) + gain * amount ** _CURVE.get((number, unit), 1)
    weights = {unit: min(w, _LIMIT.get(unit, 1.6)) for unit, w in weights.items()}
    for side in ("Left", "Right"):
        _resolve_lids(weights, side)
    _resolve_lips(weights)
    for side, lowered in zip(("left", "right"), aus.get(4, (0.0, 0.0)), strict=True):
        # Under a lowered brow there is no room for the lid's full lift.
        lift = f"mh:eye-{side}-opened-up"
        if lift in weights:
            weights[lift] *= 1 - 0.9 * lowered
    return weights


def _resolve_lids(weights: dict[str, float], side: str) -> None:
    """Lids neither pass through each other nor open and close at once."""
    blink, wide = f"eyeBlink{side}", f"eyeWide{side}"
    if weights.get(wide, 0) > 0 and weights.get(blink, 0) > 0:
        weights[blink] *= 0.3
    squint, cheek = f"eyeSquint{side}", f"cheekSquint{side}"
    shut = weights.get(blink, 0) + 0.55 * weights.get(squint, 0) + 0.35 * weights.get(cheek, 0)
    if shut > 1.05:
        for unit in (squint, cheek):
            if unit in weights:
                weights[unit] *= max(0.0, 2.05 - shut)


def _resolve_lips(weights: dict[str, float]) -> None:
    """Rolled lips cannot part: an opening mouth unrolls them."""
    parting = weights.get("jawOpen", 0) + 0.5 * weights.get("mouthLowerDownLeft", 0)
    for unit in ("mouthRollLower", "mouthRollUpper"):
        if unit in weights:
            weights[unit] *= max(0.0, 1 - 1.5 * parting)


def mouth_opening(weights: dict[str, float]) -> float:
    """How far light enters the mouth, 0..1, from face-unit weights."""
    opening = 1.2 * weights.get("jawOpen", 0)
    for lips, gain in (("mouthLowerDown", 0.5), ("mouthUpperUp", 0.4), ("mouthSmile", 0.3)):
        opening += gain * (weights.get(f"{lips}Left", 0) + weights.get(f"{lips}Right", 0)) / 2
    return float(np.clip(opening, 0, 1))


def wrinkle_gains(aus: Aus, side: int) -> dict[str, float]:
    """Wrinkle name -> gain on one side (0 left, 1 right), before age and identity."""
    gains: dict[str, float] = {}
    for number, sides in aus.items():
        for wrinkle, gain in _WRINKLES_OF_AU.get(number, {}).items():
            gains[wrinkle] = gains.get(wrinkle, 0.0) + gain * sides[side]
    return gains


def au_vector(aus: Aus) -> np.ndarray:
    """OpenGraphAU's vector, float32 [41] in 0..1: AU n is the stronger side, Ln and Rn the sides.

    AU 43 is not in that vocabulary and is left out.
    """
    vector = np.zeros(len(OPENGRAPHAU_41), np.float32)
    for i, name in enumerate(OPENGRAPHAU_41):
        kind, number = name.rstrip("0123456789"), int(name.lstrip("AULR"))
        left, right = aus.get(number, (0.0, 0.0))
        vector[i] = {"AU": max(left, right), "L": left, "R": right}[kind]
    return vector
