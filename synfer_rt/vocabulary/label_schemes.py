"""Expression label schemes: class orders differ between datasets, so labels travel by name.

Orders follow AffectNet (Mollahosseini et al. 2017), RAF-DB (Li et al. 2017), FER2013 (Goodfellow
et al. 2013), FER+ (Barsoum et al. 2016), CK+ (Lucey et al. 2010), DFEW (Jiang et al. 2020) and
HSEmotion (Savchenko 2021). The canonical names are AffectNet's.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

import numpy as np

from synfer_rt.errors import UserError, nearest

SCHEMES: dict[str, tuple[str, ...]] = {
    "affectnet-8": (
        "neutral", "happy", "sad", "surprise", "fear", "disgust", "anger", "contempt",
    ),
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

FIRST: Mapping[str, int] = {"raf-db": 1, "dfew": 1}
"""The number of the first class in the files of a dataset; 0 where a scheme is not named here."""

NO_EXPRESSION: Mapping[str, Mapping[int, str]] = {
    "affectnet-8": {8: "none", 9: "uncertain", 10: "no face"},
    "affectnet-7": {7: "contempt", 8: "none", 9: "uncertain", 10: "no face"},
    "ferplus": {8: "unknown", 9: "no face"},
}
"""Numbers that a dataset itself uses beside those of a scheme's classes, and what they say."""

_ALIASES = {
    "angry": "anger",
    "happiness": "happy",
    "sadness": "sad",
    "joyful": "happy",
    "surprised": "surprise",
    "fearful": "fear",
    "afraid": "fear",
    "scared": "fear",
    "frightened": "fear",
    "disgusted": "disgust",
    "contemptuous": "contempt",
    "neutrality": "neutral",
}
_MISSPELT = {
    "hapiness": "happy",
    "happyness": "happy",
    "suprise": "surprise",
    "suprised": "surprise",
    "surprize": "surprise",
    "surprized": "surprise",
    "fearfull": "fear",
    "discust": "disgust",
    "comtempt": "contempt",
    "nuetral": "neutral",
}
"""How datasets and the code that loads them spell some classes."""

_SPELT = {name: name for name in SCHEMES["affectnet-8"]} | _ALIASES

_CODES = {
    "anger": ("an", "ang"),
    "contempt": ("co", "con"),
    "disgust": ("di", "dis"),
    "fear": ("fe", "fea", "af"),
    "happy": ("ha", "hap", "joy"),
    "neutral": ("ne", "neu"),
    "sad": ("sa",),
    "surprise": ("su", "sur"),
}
CODES: dict[str, str] = {code: name for name, codes in _CODES.items() for code in codes}
"""Expressions by the codes of JAFFE and KDEF (`AN`, `AF`) and of CREMA-D (`ANG`), in lower case.

They and `joy` say an expression only where an expression is due: a folder may be called so after a
place or a person.
"""

_BESIDE = re.compile(
    r"(faces?|facial|images?|imgs?|pics?|pictures?|photos?|expressions?|emotions?|class|label|"
    r"aug|augmented|crop|cropped|aligned|train|val|valid|test|data|dataset|sets?|samples?|frames?|"
    r"clips?|part|fold|v|copy)\Z"
)
"""Words that say nothing of the expression, in names such as `happy_faces`."""
_NOT_NAMED = ("-", "none", "unknown", "uncertain", "no face", "nf", "other", "others")


def scheme(name: str) -> tuple[str, ...]:
    """The class names of a label scheme, in the order of its indices (0-based).

    `name` is a key of SCHEMES, or a list `neutral,happy,…` of the expressions in their order, where
    `-`, `none`, `unknown`, `uncertain`, `no face` and `other` hold the place of what is none.
    Raises UserError for another.
    """
    if isinstance(name, str) and name in SCHEMES:
        return SCHEMES[name]
    if isinstance(name, str) and "," in name:
        return _listed(name)
    raise UserError(
        f"Unknown label scheme {name!r}; known are {', '.join(SCHEMES)}, and the classes in the "
        "order of their numbers from 0, such as neutral,happy,sad."
    )


def listed(value: Any) -> Any:
    """A label scheme of a JSON file as `scheme` takes it: a list of names becomes `neutral,…`."""
    if isinstance(value, list) and len(value) > 1 and all(isinstance(name, str) for name in value):
        return ",".join(value)
    return value


@lru_cache(maxsize=64)
def _listed(text: str) -> tuple[str, ...]:
    classes: list[str] = []
    for written in text.split(","):
        word = written.strip().lower().replace("_", " ") or "-"
        name = word if word in _NOT_NAMED else expression(word)
        if name is None:
            raise UserError(
                f"The label scheme {text!r} names {word!r}, which is no known expression; the "
                f"nearest is {nearest_expression(word)}. Where a number means none, write -."
            )
        if name in classes and name not in _NOT_NAMED:
            raise UserError(f"The label scheme {text!r} names {name} twice; write each class once.")
        classes.append(name)
    if sum(name not in _NOT_NAMED for name in classes) < 2:
        raise UserError(f"The label scheme {text!r} names fewer than two expressions; write more.")
    return tuple(classes)


def names_expression(name: str) -> bool:
    """Whether a class of a scheme is an expression, not the place of something else."""
    return name not in _NOT_NAMED


def words(text: str) -> list[str]:
    """The words of a name such as `0_neutral` or `AngryFaces (2)` that may say an expression."""
    parts = re.findall(r"[^\W\d_]+", re.sub(r"([a-z])([A-Z])", r"\1 \2", text))
    return [word for word in map(str.lower, parts) if not _BESIDE.match(word)]


@lru_cache(maxsize=4096)
def expression(text: str, due: bool = True) -> str | None:
    """The canonical name of the one expression that `text` says in a usual way, or None.

    Numbers and words such as `faces` beside it do not count; any other word does, so that neither
    `not happy` nor `happily surprised` is an expression here. Where an expression is `due`, CODES
    count too.
    """
    known = _ALIASES | _MISSPELT | (CODES if due else {})
    names = {known.get(word, word) for word in words(text)}
    name = names.pop() if len(names) == 1 else None
    return name if name in SCHEMES["affectnet-8"] else None


@lru_cache(maxsize=4096)
def nearest_expression(text: str, at_least: float = 0.0) -> str | None:
    """The canonical name that a word of `text` is most like, or None where none is like it enough.

    `at_least` in [0, 1] is difflib's ratio of the letters in common.
    """
    best, nearest_name = at_least, None
    for word in words(text) or ([] if at_least else [text.lower()]):
        matcher = difflib.SequenceMatcher(None, "", word)
        for spelt, name in _SPELT.items():
            matcher.set_seq1(spelt)
            # The first two are upper bounds, and cost less.
            if matcher.real_quick_ratio() >= best and matcher.quick_ratio() >= best:
                ratio = matcher.ratio()
                if ratio >= best and (ratio > best or nearest_name is None):
                    best, nearest_name = ratio, name
    return nearest_name


def parse_labels(text: str | Sequence[str], classes: Sequence[str]) -> tuple[str, ...]:
    """Read `all`, `happy,sad,…` or a list of labels into canonical names, in the order given.

    Raises UserError for a label that is not one of `classes`, naming the nearest, for one that is
    given twice, and for what is no text.
    """
    words = [text] if isinstance(text, str) else list(text) if isinstance(text, Sequence) else None
    if words is None or not all(isinstance(word, str) for word in words):
        raise UserError(f"The labels {text!r} are no text; write all, or such as happy,sad.")
    text = ",".join(words)
    if text.strip().lower() == "all":
        return tuple(classes)
    labels: list[str] = []
    for word in (part.strip().lower() for part in text.split(",") if part.strip()):
        label = _ALIASES.get(word, word)
        if label not in classes:
            raise UserError(
                f"Unknown label {word!r}; the nearest of this model is {nearest(label, classes)} "
                f"(it knows {', '.join(classes)})."
            )
        if label in labels:
            raise UserError(f"The label {label} is given twice; labels take turns, write it once.")
        labels.append(label)
    if not labels:
        raise UserError(f"No label given; write all or some of {', '.join(classes)}.")
    return tuple(labels)


def parse_label(text: str, classes: Sequence[str]) -> str:
    """The one class that `text` names, in any of its spellings. Raises UserError for another."""
    label, *more = parse_labels(text, classes)
    if more:
        raise UserError(f"{text!r} is more than one label; write one of {', '.join(classes)}.")
    return label


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
