"""Facial action units: the vocabularies that adapters were trained on, and AU vectors.

An AU vector is a float32 array of intensities in [0, 1], one per name of its vocabulary.
Sources: FACS (Ekman, Friesen and Hager 2002) for the names; OpenGraphAU (Luo et al. 2022) for the
41 units and their order, which is the vector that SynFER's adapter takes (arXiv 2410.09865).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import cache, lru_cache
from typing import Any, cast

import numpy as np

from synfer_rt import ranges
from synfer_rt.errors import UserError, nearest

_MAIN = (1, 2, 4, 5, 6, 7, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 22, 23, 24, 25, 26, 27)
_NOSTRIL_AND_BITE = (32, 38, 39)
_SIDED = (1, 2, 4, 6, 10, 12, 14)
_UNITS_AND_SIDES = tuple((f"AU{n}", f"L{n}", f"R{n}") for n in _SIDED)


def _names(numbers: Iterable[int]) -> tuple[str, ...]:
    return tuple(f"AU{n}" for n in numbers)


OPENGRAPHAU_41 = _names(_MAIN + _NOSTRIL_AND_BITE) + tuple(
    f"{side}{n}" for n in _SIDED for side in ("L", "R")
)

VOCABULARIES: dict[str, tuple[str, ...]] = {
    "opengraphau-41": OPENGRAPHAU_41,
    "disfa-12": _names((1, 2, 4, 5, 6, 9, 12, 15, 17, 20, 25, 26)),
    "bp4d-12": _names((1, 2, 4, 6, 7, 10, 12, 14, 15, 17, 23, 24)),
    "disfa-8": _names((1, 2, 4, 6, 9, 12, 25, 26)),
}

ACTION_UNITS: dict[str, str] = {
    "AU1": "inner brow raiser",
    "AU2": "outer brow raiser",
    "AU4": "brow lowerer",
    "AU5": "upper lid raiser",
    "AU6": "cheek raiser",
    "AU7": "lid tightener",
    "AU9": "nose wrinkler",
    "AU10": "upper lip raiser",
    "AU11": "nasolabial deepener",
    "AU12": "lip corner puller",
    "AU13": "sharp lip puller",
    "AU14": "dimpler",
    "AU15": "lip corner depressor",
    "AU16": "lower lip depressor",
    "AU17": "chin raiser",
    "AU18": "lip pucker",
    "AU19": "tongue show",
    "AU20": "lip stretcher",
    "AU22": "lip funneler",
    "AU23": "lip tightener",
    "AU24": "lip pressor",
    "AU25": "lips part",
    "AU26": "jaw drop",
    "AU27": "mouth stretch",
    "AU32": "lip bite",
    "AU38": "nostril dilator",
    "AU39": "nostril compressor",
} | {
    f"{side}{n}": f"{word} {text}"
    for n, text in (
        (1, "inner brow raiser"),
        (2, "outer brow raiser"),
        (4, "brow lowerer"),
        (6, "cheek raiser"),
        (10, "upper lip raiser"),
        (12, "lip corner puller"),
        (14, "dimpler"),
    )
    for side, word in (("L", "left"), ("R", "right"))
}

REGIONS: dict[str, tuple[int, ...]] = {
    "brows": (1, 2, 4),
    "eyes and cheeks": (5, 6, 7, 41, 42, 43, 44, 45, 46),
    "nose": (9, 11, 38, 39),
    "upper lip and mouth corners": (10, 12, 13, 14, 15, 20),
    "lips": (8, 16, 18, 19, 22, 23, 24, 25, 28, 32),
    "chin and jaw": (17, 21, 26, 27, 29, 30, 31),
}
"""The parts of the face that show most of a unit's action, by FACS number (Ekman, Friesen and Hager
2002, whose chapters divide them by the direction of the pull instead)."""


def vocabulary(name: str) -> tuple[str, ...]:
    """The AU names of a vocabulary, in the order of its vector.

    Raises UserError for a name that is not in VOCABULARIES.
    """
    if name not in VOCABULARIES:
        known = ", ".join(VOCABULARIES)
        raise UserError(f"Unknown AU vocabulary {name!r}; known are {known}.")
    return VOCABULARIES[name]


def in_vocabulary(aus: Mapping[str, float], names: tuple[str, ...]) -> dict[str, float]:
    """The intensities `aus` by AU name, with each name as `names` has it.

    Names are read in upper or lower case. Intensities lie in [0, 1]. Raises UserError for an
    unknown unit (naming the nearest one of `names`), a unit given twice, a value that is not a
    number or outside the range, and anything but a mapping.
    """
    spelling = {name.upper(): name for name in names}
    found: dict[str, float] = {}
    for written, value in intensities(aus).items():
        word = written.strip().upper()
        if word not in spelling:
            near = nearest(word, names)
            raise UserError(
                f"Unknown action unit {word!r}; the nearest of this model is {near} "
                f"({ACTION_UNITS.get(near.upper(), 'no FACS name')})."
            )
        name = spelling[word]
        if name in found:
            raise UserError(f"`aus` contains {name} twice; write each unit once.")
        found[name] = value
    return found


def intensities(aus: Any) -> dict[str, float]:
    """{name: intensity} as floats. Raises UserError for any that is not a number in [0, 1]."""
    if not isinstance(aus, Mapping):
        raise UserError(f'`aus` must be a mapping such as {{"AU12": 0.8}}, got {aus!r}.')
    found: dict[str, float] = {}
    for name, value in cast("Mapping[Any, Any]", aus).items():
        if not isinstance(name, str):
            raise UserError(f"`aus` must have names such as AU12, got {name!r}.")
        if not ranges.is_real(value, 0, 1):
            wanted = "from 0 to 1" if ranges.is_number(value) else "a number from 0 to 1"
            raise UserError(f"The intensity of {name} must be {wanted}, got {ranges.shown(value)}.")
        found[name] = float(value)
    return found


def au_vector(aus: Mapping[str, float], names: tuple[str, ...] = OPENGRAPHAU_41) -> np.ndarray:
    """{name: intensity} as a float32 vector of len(names); see `au_vectors`."""
    return au_vectors([aus], names)[0]


def au_vectors(
    several: Iterable[Mapping[str, float]], names: tuple[str, ...] = OPENGRAPHAU_41
) -> np.ndarray:
    """B times {name: intensity} as float32 rows [B, len(names)].

    A unit given without its sides acts on both (AU12 sets L12 and R12 where they are not given);
    a side given alone sets its unit to the stronger side, as OpenGraphAU labels it. Upper and
    lower case are the same name.
    """
    columns = _columns(names)
    found = list(map(_with_sides, several))
    rows = np.zeros((len(found), len(names)), np.float32)
    for row, aus in zip(rows, found, strict=True):
        for name, intensity in aus.items():
            if name in columns:
                row[columns[name]] = intensity
    return rows


@cache
def _columns(names: tuple[str, ...]) -> dict[str, int]:
    """The place of each name in a vector, by the name in upper case."""
    return {name.upper(): i for i, name in enumerate(names)}


def _with_sides(aus: Mapping[str, float]) -> dict[str, float]:
    """The intensities by upper-case name, with those that follow for units and their sides."""
    aus = {name.upper(): intensity for name, intensity in aus.items()}
    full = dict(aus)
    for both, left, right in _UNITS_AND_SIDES:
        if both in aus:
            full.setdefault(left, aus[both])
            full.setdefault(right, aus[both])
        elif left in aus or right in aus:
            full[both] = max(aus.get(left, 0.0), aus.get(right, 0.0))
    return full


def au_intensities(
    aus: Mapping[str, float], names: tuple[str, ...] = OPENGRAPHAU_41
) -> dict[str, float]:
    """{name: intensity} of every unit of `au_vector`, for a record."""
    found, columns = dict.fromkeys(names, 0.0), _columns(names)
    for name, intensity in _with_sides(aus).items():
        if name in columns:
            found[names[columns[name]]] = _shortest(intensity)
    return found


@lru_cache(maxsize=1024)
def _shortest(intensity: float) -> float:
    """The shortest decimal that is the float32 of an intensity."""
    return float(str(np.float32(intensity)))


def as_known(aus: Mapping[str, float], names: tuple[str, ...]) -> dict[str, float]:
    """{name: intensity} by the names of a vocabulary, as `au_vector` reads it; zeros left out."""
    vector = au_vector(aus, names).tolist()
    return {name: x for name, x in zip(names, vector, strict=True) if x > 0}


def mirror(vectors: np.ndarray) -> np.ndarray:
    """The OpenGraphAU-41 vectors [..., 41] of the mirrored faces: left and right exchanged."""
    order = [
        OPENGRAPHAU_41.index({"L": "R", "R": "L"}[name[0]] + name[1:]) if name[0] in "LR" else i
        for i, name in enumerate(OPENGRAPHAU_41)
    ]
    return vectors[..., order]
