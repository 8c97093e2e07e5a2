"""Label schemes: the order of the classes differs between datasets, so labels travel by name.

Orders follow AffectNet (Mollahosseini et al. 2017), RAF-DB (Li et al. 2017), FER2013 (Goodfellow
et al. 2013), FER+ (Barsoum et al. 2016), CK+ (Lucey et al. 2010), DFEW (Jiang et al. 2020) and
HSEmotion (Savchenko 2021). The names of the classes are those of `expressions.py`.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Any, cast

import numpy as np

from synfer_rt.errors import UserError
from synfer_rt.vocabulary.expressions import EXPRESSIONS, expression, nearest_expression

SCHEMES: dict[str, tuple[str, ...]] = {
    "affectnet-8": EXPRESSIONS,
    "affectnet-7": ("neutral", "happy", "sad", "surprise", "fear", "disgust", "anger"),
    "raf-db": ("surprise", "fear", "disgust", "happy", "sad", "anger", "neutral"),
    "raf-db-from-0": ("surprise", "fear", "disgust", "happy", "sad", "anger", "neutral"),
    "fer2013-csv": ("anger", "disgust", "fear", "happy", "sad", "surprise", "neutral"),
    "fer2013-folders": ("anger", "disgust", "fear", "happy", "neutral", "sad", "surprise"),
    "ferplus": (
        "neutral", "happy", "surprise", "sad", "anger", "disgust", "fear", "contempt",
    ),
    "ck-plus": (
        "neutral", "anger", "contempt", "disgust", "fear", "happy", "sad", "surprise",
    ),
    "dfew": ("happy", "sad", "neutral", "anger", "surprise", "disgust", "fear"),
    "hsemotion-8": (
        "anger", "contempt", "disgust", "fear", "happy", "neutral", "sad", "surprise",
    ),
    "hsemotion-7": ("anger", "disgust", "fear", "happy", "neutral", "sad", "surprise"),
}  # fmt: skip

FIRST_NUMBER: Mapping[str, int] = {"raf-db": 1, "dfew": 1}
"""The number of the first class in the files of a dataset; 0 for schemes that are not here."""

NON_EXPRESSIONS: Mapping[str, Mapping[int, str]] = {
    "affectnet-8": {8: "none", 9: "uncertain", 10: "no face"},
    "affectnet-7": {7: "contempt", 8: "none", 9: "uncertain", 10: "no face"},
    "ferplus": {8: "unknown", 9: "no face"},
}
"""Numbers that a dataset uses besides those of a scheme's classes, with their meanings."""

_PLACEHOLDERS = ("-", "none", "unknown", "uncertain", "no face", "nf", "other", "others")


def scheme(name: Any) -> tuple[str, ...]:
    """The class names of a label scheme, in the order of their numbers (from 0).

    `name` is a key of SCHEMES, or a list `neutral,happy,…` of the expressions in their order, where
    `-`, `none`, `unknown`, `uncertain`, `no face` and `other` hold the place of a class that is not
    an expression. Raises UserError for anything else.
    """
    if isinstance(name, str) and name in SCHEMES:
        return SCHEMES[name]
    if isinstance(name, str) and "," in name:
        return _listed(name)
    raise UserError(
        f"Unknown label scheme {name!r}; known are {', '.join(SCHEMES)}, and lists of the classes "
        "in the order of their numbers from 0, such as neutral,happy,sad."
    )


def from_json(value: Any) -> Any:
    """A label scheme of a JSON file as `scheme` takes it: a list of names becomes `neutral,…`."""
    if isinstance(value, list):
        names = cast("list[Any]", value)
        if len(names) > 1 and all(isinstance(name, str) for name in names):
            return ",".join(names)
    return cast(Any, value)


@lru_cache(maxsize=64)
def _listed(text: str) -> tuple[str, ...]:
    classes: list[str] = []
    for written in text.split(","):
        word = written.strip().lower().replace("_", " ") or "-"
        name = word if word in _PLACEHOLDERS else expression(word)
        if name is None:
            raise UserError(
                f"The label scheme {text!r} contains {word!r}, which is no known expression; the "
                f"nearest is {nearest_expression(word)}. For a class that is not an expression, "
                "write -."
            )
        if name in classes and name not in _PLACEHOLDERS:
            raise UserError(
                f"The label scheme {text!r} contains {name} twice; write each class once."
            )
        classes.append(name)
    if sum(name not in _PLACEHOLDERS for name in classes) < 2:
        raise UserError(
            f"The label scheme {text!r} has fewer than two expressions; write two or more."
        )
    return tuple(classes)


def is_expression(name: str) -> bool:
    """Whether a class of a scheme is an expression, not the place of something else."""
    return name not in _PLACEHOLDERS


def convert(probabilities: np.ndarray, source: str, target: str) -> np.ndarray:
    """Class probabilities [..., n] of one scheme in the order of another, [..., m].

    Classes that the target lacks are dropped and the rest renormalised; classes that the source
    lacks get 0. A row whose shared classes have no mass becomes uniform over them.
    """
    sources, targets = scheme(source), scheme(target)
    shared = [name for name in targets if name in sources]
    columns = np.stack([probabilities[..., sources.index(name)] for name in shared], -1)
    mass = columns.sum(-1, keepdims=True)
    uniform = np.full_like(columns, 1.0 / len(shared))
    columns = np.where(mass > 0, columns / np.where(mass > 0, mass, 1), uniform)
    result = np.zeros((*probabilities.shape[:-1], len(targets)), probabilities.dtype)
    for i, name in enumerate(shared):
        result[..., targets.index(name)] = columns[..., i]
    return result
