"""Label schemes: the order of the classes differs between datasets, so labels travel by name.

Orders follow AffectNet (Mollahosseini et al. 2017), RAF-DB with its compound expressions (Li et al.
2017), FER2013 (Goodfellow et al. 2013), FER+ (Barsoum et al. 2016), CK+ (Lucey et al. 2010), DFEW
(Jiang et al. 2020), HSEmotion (Savchenko 2021) and the taxonomy of EmoNet-Face (Schuhmann et al.,
arXiv 2505.20033). Classes have the names of `expressions.py`; others are their own words, in lower
case and without punctuation. A scheme travels as a text: its name, or its classes with commas.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import lru_cache
from types import MappingProxyType
from typing import Any

import numpy as np

from synfer_rt.errors import UserError
from synfer_rt.vocabulary.expressions import EXPRESSIONS, expression, nearest_expression, words

_COMPOUND = (
    "happily surprised", "happily disgusted", "sadly fearful", "sadly angry", "sadly surprised",
    "sadly disgusted", "fearfully angry", "fearfully surprised", "angrily surprised",
    "angrily disgusted", "disgustedly surprised",
)  # fmt: skip
_EMONET_FACE = (
    "amusement", "elation", "pleasure ecstasy", "contentment", "thankfulness gratitude",
    "affection", "infatuation", "hope enthusiasm optimism", "triumph", "pride", "interest", "awe",
    "astonishment surprise", "concentration", "contemplation", "relief", "longing", "teasing",
    "impatience and irritability", "sexual lust", "doubt", "fear", "distress", "confusion",
    "embarrassment", "shame", "disappointment", "sad", "bitterness", "contempt", "disgust",
    "anger", "malevolence malice", "sourness", "pain", "helplessness", "fatigue exhaustion",
    "emotional numbness", "intoxication altered states of consciousness", "jealousy envy",
)  # fmt: skip

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
    "raf-db-compound": _COMPOUND,
    "raf-db-compound-from-0": _COMPOUND,
    "emonet-face": _EMONET_FACE,
}  # fmt: skip

FIRST_NUMBER: Mapping[str, int] = {"raf-db": 1, "raf-db-compound": 1, "dfew": 1}
"""The number of the first class in the files of a dataset; 0 for schemes that are not here."""

NON_EXPRESSIONS: Mapping[str, Mapping[int, str]] = {
    "affectnet-8": {8: "none", 9: "uncertain", 10: "no face"},
    "affectnet-7": {7: "contempt", 8: "none", 9: "uncertain", 10: "no face"},
    "ferplus": {8: "unknown", 9: "no face"},
}
"""Numbers that a dataset uses besides those of a scheme's classes, with their meanings."""

Mapped = Mapping[str, Mapping[str, float]]
"""What classes are in another scheme: weights, which add up to 1, by that scheme's classes."""
_NO_MAPPING: Mapped = MappingProxyType(dict[str, Mapping[str, float]]())

DIMENSIONS = ("valence", "arousal")
"""Scores beside those of classes that a classifier may have, such as EmotiEffLib's `*_va_mtl`."""

_PLACEHOLDERS = ("-", "none", "unknown", "uncertain", "no face", "nf", "other", "others")
_NO_CLASSES = frozenset((*_PLACEHOLDERS, *DIMENSIONS))
_KNOWN = frozenset(name for classes in SCHEMES.values() for name in classes)
_LIKE = 0.7
"""The likeness, 0 to 1, from which an unknown word is taken for a misspelt expression."""


def scheme(name: Any) -> tuple[str, ...]:
    """The class names of a label scheme, in the order of their numbers (from 0).

    `name` is a key of SCHEMES, or a list `neutral,happy,…` of classes in their order, where `-`,
    `none`, `unknown`, `uncertain`, `no face` and `other` hold the place of something that is not a
    class, `valence` and `arousal` that of a dimension. A name in double quotes is taken as it is,
    not as a spelling of an expression. Raises UserError for anything else, and for a name that
    seems to be a misspelt expression. `scheme_files.given_scheme` reads files, too.
    """
    if isinstance(name, str) and name in SCHEMES:
        return SCHEMES[name]
    if isinstance(name, str) and "," in name:
        return _listed(name)
    raise UserError(
        f"Unknown label scheme {name!r}; known are {', '.join(SCHEMES)}, lists of the classes in "
        "the order of their numbers from 0, such as neutral,happy,sad, and .yaml or .json files."
    )


def class_name(written: str) -> str:
    """The name of a class as schemes hold it: an expression's canonical name, else its words."""
    word = written.strip().lower().replace("_", " ") or "-"
    if word in _NO_CLASSES:
        return word
    return expression(word) or plain_name(word) or "-"


def plain_name(written: str) -> str:
    """The words of a name in lower case, without punctuation."""
    return " ".join(re.findall(r"[^\W_]+", written.lower()))


def listed(classes: Sequence[str]) -> str:
    """The text that `scheme` reads as these classes."""
    return ",".join(
        f'"{name}"'
        if is_expression(name) and (class_name(name) != name or misspelt(name))
        else name
        for name in classes
    )


def is_known(name: str) -> bool:
    """Whether a class belongs to one of SCHEMES."""
    return name in _KNOWN


@lru_cache(maxsize=64)
def _listed(text: str) -> tuple[str, ...]:
    classes: list[str] = []
    for written in map(str.strip, text.split(",")):
        as_it_is = len(written) > 2 and written[0] == written[-1] == '"'
        name = plain_name(written) if as_it_is else class_name(written)
        if not as_it_is and (near := misspelt(name)):
            raise UserError(
                f"The label scheme {text!r} contains {name!r}, which is no known expression; the "
                f"nearest is {near}. For a class of your own of that name, put it in double "
                "quotes; for a number that is no class, write -."
            )
        if name in classes and name not in _PLACEHOLDERS:
            raise UserError(
                f"The label scheme {text!r} contains {name} twice; write each class once."
            )
        classes.append(name)
    if sum(map(is_expression, classes)) < 2:
        raise UserError(f"The label scheme {text!r} has fewer than two classes; write two or more.")
    return tuple(classes)


def misspelt(name: str) -> str | None:
    """The expression that the name of a class seems to be a misspelling of, or None."""
    if name in _KNOWN or not is_expression(name) or len(words(name)) != 1:
        return None
    return nearest_expression(name, _LIKE)


def is_expression(name: str) -> bool:
    """Whether a class of a scheme is one, not the place of something else."""
    return name not in _NO_CLASSES


@lru_cache(maxsize=64)
def own_classes(name: Any) -> tuple[str, ...]:
    """The classes of a scheme that are none of the eight expressions; none of an unknown scheme."""
    try:
        classes = scheme(name)
    except UserError:
        return ()
    return tuple(c for c in classes if c not in EXPRESSIONS and is_expression(c))


@lru_cache(maxsize=4096)
def own_class(text: str, classes: Sequence[str]) -> str | None:
    """The class among `classes` (`own_classes`) that `text` names, or None.

    Numbers and words such as `faces` beside it are ignored, as those beside expressions are, unless
    the class has a number itself.
    """
    name = plain_name(text)
    if name in classes:
        return name
    said = words(text)
    found = [c for c in classes if said and words(c) == said and not re.search(r"\d", c)]
    return found[0] if len(found) == 1 else None


def reached(source: str, target: str, mapping: Mapped = _NO_MAPPING) -> tuple[str, ...]:
    """The classes of `target` that a class of `source` is, by its name or by a mapping."""
    sources = scheme(source)
    names = {name for name in sources if name not in mapping}
    names |= {name for parts in mapping.values() for name in parts}
    return tuple(name for name in filter(is_expression, scheme(target)) if name in names)


def left_out(source: str, target: str, mapping: Mapped = _NO_MAPPING) -> tuple[str, ...]:
    """The classes of `source` that are none of `target`, neither by name nor by a mapping."""
    known = {*scheme(target), *mapping}
    return tuple(name for name in filter(is_expression, scheme(source)) if name not in known)


def mapped(probabilities: np.ndarray, source: str, target: str, mapping: Mapped) -> np.ndarray:
    """Class probabilities [..., n] of `source` by the classes that they reach, [..., m].

    A class gives each of those that the mapping names its weight. Classes that are left out are
    dropped and the rest renormalised; a row without mass elsewhere becomes uniform.
    """
    classes = reached(source, target, mapping)
    weights = np.zeros((probabilities.shape[-1], len(classes)))
    for row, name in enumerate(scheme(source)):
        for to, weight in mapping.get(name, {name: 1.0}).items():
            if to in classes:
                weights[row, classes.index(to)] = weight
    found = probabilities.astype(np.float64) @ weights
    mass = found.sum(-1, keepdims=True)
    return np.where(mass > 0, found / np.where(mass > 0, mass, 1), 1 / len(classes))


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
