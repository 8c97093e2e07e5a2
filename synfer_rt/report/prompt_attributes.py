"""What a prompt says of a face: the attributes of `vocabulary.prompts`, read back from a sentence.

Records hold the prompt, not the attributes that it was made of. A sentence that `describe` wrote
gives all of them back; of a prompt in other words those count that it names in the same words.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import lru_cache

from synfer_rt.vocabulary import prompts

NOT_SAID = ""
"""The word of an attribute that a prompt does not name, or names twice in different words."""
AUDITED = ("age", "gender", "ancestry")

_CHILD, _ELDERLY = "child", "elderly"
_GENDERS = {
    "female": ("woman", "lady", "girl", "female"),
    "male": ("man", "gentleman", "boy", "male"),
}
_AGES = {
    _CHILD: ("girl", "boy", "child"),
    "young": ("young",),
    "middle-aged": ("middle-aged",),
    _ELDERLY: (_ELDERLY, "old"),
}
_IN_YEARS = re.compile(r"years?[ -]old")

WORDS: Mapping[str, tuple[str, ...]] = {
    "age": prompts.AGES,
    "gender": prompts.GENDERS,
    "ancestry": prompts.ANCESTRIES,
    "hair": prompts.HAIR_STYLES,
    "hair colour": prompts.HAIR_COLORS,
    "beard": ("beard",),
    "eyes": tuple(filter(None, prompts.EYES)),
    "pose": tuple(filter(None, prompts.POSES)),
    "light": tuple(filter(None, prompts.LIGHTS)),
    "background": tuple(filter(None, prompts.BACKGROUNDS)),
}
"""The attributes with their words, in the order in which they are shown."""


@lru_cache(maxsize=4096)
def attributes_of(prompt: str) -> Mapping[str, str]:
    """The word of each attribute of WORDS that a prompt names, NOT_SAID for the others."""
    text = _IN_YEARS.sub("years", prompt.lower())
    found = {
        "age": _age(text),
        "gender": _one(text, _GENDERS),
        "ancestry": _one(text, {word: (word.lower(),) for word in prompts.ANCESTRIES}),
        "hair": _hair_style(text),
        "hair colour": _hair_colour(text),
    }
    for name in WORDS.keys() - found.keys():
        found[name] = _one(text, {word: (word,) for word in WORDS[name]})
    return {name: found[name] for name in WORDS}


def _names(text: str, word: str) -> bool:
    """Whether a text has a word or phrase that is no part of another word."""
    return re.search(rf"(?<![\w-]){re.escape(word)}(?![\w-])", text) is not None


def _one(text: str, words: Mapping[str, tuple[str, ...]]) -> str:
    """The only value of which a text has a word."""
    found = [value for value, said in words.items() if any(_names(text, word) for word in said)]
    return found[0] if len(found) == 1 else NOT_SAID


def _age(text: str) -> str:
    """A girl or boy is a child, even a young one; an old woman is elderly."""
    if any(_names(text, word) for word in _AGES[_CHILD]):
        adult = any(_names(text, word) for age in ("middle-aged", _ELDERLY) for word in _AGES[age])
        return NOT_SAID if adult else _CHILD
    return _one(text, _AGES)


def _hair_style(text: str) -> str:
    if _names(text, "bald"):
        return "bald"
    styles = [
        style for style in prompts.HAIR_STYLES if re.search(rf"\b{style} [\w ]*?hair\b", text)
    ]
    return styles[0] if len(styles) == 1 else NOT_SAID


def _hair_colour(text: str) -> str:
    """The longest colour before `hair`: dark brown is not brown."""
    colors = [color for color in prompts.HAIR_COLORS if re.search(rf"\b{color} hair\b", text)]
    return max(colors, key=len, default=NOT_SAID)
