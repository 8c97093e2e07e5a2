"""The expressions, and the ways in which people, datasets and programs spell them."""

from __future__ import annotations

import difflib
import re
from collections.abc import Sequence
from functools import lru_cache
from typing import Any, Literal, cast

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


def choose_labels(
    labels: Literal["all"] | Sequence[str], classes: Sequence[str]
) -> tuple[str, ...]:
    """The canonical names of `labels`, in the order given; of all `classes` for "all".

    Each label is a usual name of a class, in upper or lower case. Raises UserError for a label that
    is not one of `classes`, naming the nearest, for one that occurs twice, and for a value of
    another type.
    """
    if labels == "all":
        return tuple(classes)
    found: list[str] = []
    for written in _listed(labels):
        label = parse_label(written, classes)
        if label in found:
            raise UserError(f"`labels` contains {label} twice; write each label once.")
        found.append(label)
    if not found:
        raise UserError(
            f'`labels` is empty; write `labels="all"`, or some of {", ".join(classes)}.'
        )
    return tuple(found)


def parse_label(label: object, classes: Sequence[str]) -> str:
    """The class that `label` names, in upper or lower case and with any of its usual names.

    Raises UserError for a label that is not one of `classes`, naming the nearest, and for a value
    that is not a text.
    """
    if not isinstance(label, str):
        raise UserError(f"`label` must be a text, got {label!r}.")
    word = label.strip().lower()
    plain = " ".join(re.findall(r"[^\W_]+", word))
    usual = _ALIASES.get(word, word)
    name = next((name for name in (word, usual, plain) if name in classes), None)
    if name is None:
        raise UserError(
            f"Unknown label {word!r}; the nearest of this model is {nearest(usual, classes)} "
            f"(it knows {', '.join(classes)})."
        )
    return name


def _listed(labels: Any) -> Sequence[str]:
    """`labels` if they are a list of texts. Raises UserError for anything else, one text too."""
    if isinstance(labels, Sequence) and not isinstance(labels, (str, bytes)):
        words = cast("Sequence[Any]", labels)
        if all(isinstance(word, str) for word in words):
            return words
    raise UserError(
        f'`labels` must be "all" or a list of labels such as ["happy", "sad"], got {labels!r}.'
    )
