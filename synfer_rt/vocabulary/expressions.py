"""The expressions, and the ways in which people, datasets and programs spell them."""

from __future__ import annotations

import difflib
import re
from collections.abc import Sequence
from functools import lru_cache
from typing import Any, cast

from synfer_rt.errors import UserError, nearest

EXPRESSIONS = ("neutral", "happy", "sad", "surprise", "fear", "disgust", "anger", "contempt")
"""The canonical names, which are AffectNet's (Mollahosseini et al. 2017), in its order."""

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
"""Misspellings in datasets and in the code that loads them."""

_SPELLINGS = {name: name for name in EXPRESSIONS} | _ALIASES

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

They and `joy` mean an expression only where one is expected: a folder may have such a name after a
place or a person.
"""

_BESIDE = re.compile(
    r"(faces?|facial|images?|imgs?|pics?|pictures?|photos?|expressions?|emotions?|class|label|"
    r"aug|augmented|crop|cropped|aligned|train|val|valid|test|data|dataset|sets?|samples?|frames?|"
    r"clips?|part|fold|v|copy)\Z"
)
"""Words that do not tell the expression, in names such as `happy_faces`."""


def words(text: str) -> list[str]:
    """The words of a name such as `0_neutral` or `AngryFaces (2)` that may tell an expression."""
    parts = re.findall(r"[^\W\d_]+", re.sub(r"([a-z])([A-Z])", r"\1 \2", text))
    return [word for word in map(str.lower, parts) if not _BESIDE.match(word)]


@lru_cache(maxsize=4096)
def expression(text: str, expected: bool = True) -> str | None:
    """The canonical name of the one expression that `text` spells in a usual way, or None.

    Numbers and words such as `faces` beside it are ignored. Any other word is not, so neither `not
    happy` nor `happily surprised` is an expression here. Where an expression is `expected`, CODES
    are read too.
    """
    known = _ALIASES | _MISSPELT | (CODES if expected else {})
    names = {known.get(word, word) for word in words(text)}
    name = names.pop() if len(names) == 1 else None
    return name if name in EXPRESSIONS else None


@lru_cache(maxsize=4096)
def nearest_expression(text: str, at_least: float = 0.0) -> str | None:
    """The canonical name of the expression most similar to a word of `text`.

    None if no similarity, difflib's ratio of common letters in [0, 1], reaches `at_least`.
    """
    best, nearest_name = at_least, None
    for word in words(text) or ([] if at_least else [text.lower()]):
        matcher = difflib.SequenceMatcher(None, "", word)
        for spelling, name in _SPELLINGS.items():
            matcher.set_seq1(spelling)
            # The first two are upper bounds, and cost less.
            if matcher.real_quick_ratio() >= best and matcher.quick_ratio() >= best:
                ratio = matcher.ratio()
                if ratio >= best and (ratio > best or nearest_name is None):
                    best, nearest_name = ratio, name
    return nearest_name


def parse_labels(labels: str | Sequence[str], classes: Sequence[str]) -> tuple[str, ...]:
    """Read `all`, `happy,sad,…` or a list of labels into canonical names, in the order given.

    Raises UserError for a label that is not one of `classes`, naming the nearest, for one that
    occurs twice, and for a value of another type.
    """
    text = _joined(labels)
    if text.strip().lower() == "all":
        return tuple(classes)
    found: list[str] = []
    for word in (part.strip().lower() for part in text.split(",") if part.strip()):
        label = _ALIASES.get(word, word)
        if label not in classes:
            raise UserError(
                f"Unknown label {word!r}; the nearest of this model is {nearest(label, classes)} "
                f"(it knows {', '.join(classes)})."
            )
        if label in found:
            raise UserError(f"`labels` contains {label} twice; write each label once.")
        found.append(label)
    if not found:
        raise UserError(f"`labels` is empty; write all, or some of {', '.join(classes)}.")
    return tuple(found)


def parse_label(label: str, classes: Sequence[str]) -> str:
    """The one class that `label` spells. Raises UserError for another, and for several."""
    found, *more = parse_labels(label, classes)
    if more:
        raise UserError(f"{label!r} is more than one label; write one of {', '.join(classes)}.")
    return found


def _joined(labels: Any) -> str:
    """A text or a list of texts as one text with commas. Raises UserError for anything else."""
    words: Any = [labels] if isinstance(labels, str) else labels
    if not isinstance(words, Sequence) or isinstance(words, bytes):
        words = [words]
    if not all(isinstance(word, str) for word in cast("Sequence[Any]", words)):
        raise UserError(
            f"`labels` must be all, a text such as happy,sad or a list of texts, got {labels!r}."
        )
    return ",".join(cast("Sequence[str]", words))
