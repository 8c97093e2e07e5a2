"""Natural prompts: the words that describe a face, drawn for a request or from an annotation.

The default model was trained on these sentences. It accepts any text, but its tokenizer does not
know words outside `words()`. Other models (Stable Diffusion) read the same sentences.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np

EXPRESSION_WORDS: dict[str, tuple[str, ...]] = {
    "neutral": ("neutral", "calm", "expressionless"),
    "happy": ("happy", "smiling", "joyful"),
    "sad": ("sad", "unhappy", "sorrowful"),
    "surprise": ("surprised", "astonished", "amazed"),
    "fear": ("fearful", "scared", "frightened"),
    "disgust": ("disgusted", "repulsed", "revolted"),
    "anger": ("angry", "furious", "enraged"),
    "contempt": ("contemptuous", "scornful", "disdainful"),
}
AGES = ("child", "young", "middle-aged", "elderly")
GENDERS = ("female", "male")
ANCESTRIES = ("African", "East Asian", "European")
HAIR_STYLES = ("bald", "cropped", "short", "long")
HAIR_COLORS = ("black", "dark brown", "brown", "light brown", "blond", "red", "grey", "white")
LIGHTS = ("", "dim light", "bright light", "light from the left", "light from the right")
POSES = ("", "head turned left", "head turned right")
BACKGROUNDS = ("", "dark background", "bright background")
EYES = ("", "half-closed eyes", "closed eyes")

_NOUNS = {
    ("child", "female"): ("girl",),
    ("child", "male"): ("boy",),
    ("adult", "female"): ("woman", "lady"),
    ("adult", "male"): ("man", "gentleman"),
}
_AGE_WORDS = {
    "": ("",),
    "child": ("young", "little"),
    "young": ("young",),
    "middle-aged": ("middle-aged",),
    "elderly": ("elderly", "old"),
}
_OPENINGS = ("a photo of", "a portrait of", "a close-up of")


@dataclass(frozen=True)
class Attributes:
    """A face as a prompt describes it, without its expression; an empty string says nothing.

    `age`, `gender` and `ancestry` are members of AGES, GENDERS and ANCESTRIES (an empty age is that
    of any adult, an empty ancestry is mixed); the rest are whole phrases, such as
    `long black hair` or one of LIGHTS.
    Left and right are as seen in the image.
    """

    age: str
    gender: str
    ancestry: str = ""
    hair: str = ""
    beard: str = ""
    eyes: str = ""
    pose: str = ""
    light: str = ""
    background: str = ""


def expression_words(label: str) -> tuple[str, ...]:
    """The words for a class: an expression's synonyms, or the name of a class of another scheme."""
    return EXPRESSION_WORDS.get(label, (label,))


def hair_phrase(style: str, color: str) -> str:
    """One of HAIR_STYLES and one of HAIR_COLORS in words."""
    return "bald head" if style == "bald" else f"{style} {color} hair"


def _article(words: str) -> str:
    return "an" if words[0].lower() in "aeiou" else "a"


def _pick(options: Sequence[str], u: float) -> str:
    return options[int(u * len(options))]


def person(age: str, gender: str, ancestry: str, uniforms: Sequence[float]) -> str:
    """A person in words, such as `elderly East Asian woman`; see `Attributes` and `describe`."""
    adult = "child" if age == "child" else "adult"
    words = (
        _pick(_AGE_WORDS[age], uniforms[0]),
        ancestry,
        _pick(_NOUNS[adult, gender], uniforms[1]),
    )
    return " ".join(filter(None, words))


def describe(attributes: Attributes, expression: str | None, uniforms: Sequence[float]) -> str:
    """The sentence for a face; `uniforms` (3 numbers in [0, 1)) choose among synonyms.

    `expression` is a class's name, or None to leave the expression unsaid.
    """
    who = person(attributes.age, attributes.gender, attributes.ancestry, uniforms)
    sentence = f"{_pick(_OPENINGS, uniforms[1])} {_article(who)} {who}"
    if expression is not None:
        word = _pick(expression_words(expression), uniforms[2])
        sentence += f" with {_article(word)} {word} face"
    details = (
        attributes.hair,
        attributes.beard,
        attributes.eyes,
        attributes.pose,
        attributes.light,
        attributes.background,
    )
    return ", ".join([sentence, *(phrase for phrase in details if phrase)])


def expression_alone(label: str) -> str:
    """A prompt that names an expression and nothing else, for a face that is given."""
    word = expression_words(label)[0]
    return f"a photo of {_article(word)} {word} face"


@cache
def _edges(weights: tuple[float, ...]) -> tuple[float, ...]:
    """Where the parts of [0, 1) end that belong to options of these weights."""
    ends = np.cumsum(np.array(weights, np.float64))
    return tuple((ends / ends[-1]).tolist())


def draw(uniforms: Iterable[float]) -> Attributes:
    """Varied attributes from DRAWS numbers in [0, 1); balanced over age, gender and ancestry."""
    u = iter(uniforms)

    def pick(options: Sequence[str], weights: tuple[float, ...] | None = None) -> str:
        edges = _edges((1.0,) * len(options) if weights is None else weights)
        return options[bisect_right(edges, next(u))]

    age, gender, ancestry = pick(AGES), pick(GENDERS), pick(ANCESTRIES)
    style_weights = (0, 0.06, 0.24, 0.7) if gender == "female" else (0.09, 0.33, 0.55, 0.03)
    if age == "elderly":
        color_weights = (0.8, 0.6, 0.4, 0.3, 0.3, 0.2, 4, 4)
    elif ancestry == "European":
        color_weights = (1.6, 2, 2, 1.5, 1.9, 1, 0, 0)
    else:
        color_weights = (5.5, 3, 0.8, 0.3, 0.2, 0.2, 0, 0)
    style, color = pick(HAIR_STYLES, style_weights), pick(HAIR_COLORS, color_weights)
    beard = pick(("", "beard"), (0.75, 0.25))
    return Attributes(
        age,
        gender,
        ancestry,
        hair_phrase(style, color),
        beard if gender == "male" and age != "child" else "",
        "",
        pick(POSES, (0.6, 0.2, 0.2)),
        pick(LIGHTS, (0.4, 0.15, 0.15, 0.15, 0.15)),
        pick(BACKGROUNDS, (0.4, 0.3, 0.3)),
    )


DRAWS = 9
"""The number of uniform numbers that `draw` takes."""


def words() -> Iterator[str]:
    """Every word that `describe` can write, in a fixed order, with repetitions."""
    groups: list[Sequence[str]] = [*EXPRESSION_WORDS.values(), *_NOUNS.values()]
    groups += [*_AGE_WORDS.values(), _OPENINGS, ANCESTRIES, HAIR_STYLES, HAIR_COLORS]
    groups += [LIGHTS, POSES, BACKGROUNDS, EYES, ("beard", "stubble", "a face", "bald head hair")]
    groups += [("an", "with", ",")]
    for group in groups:
        for phrase in group:
            yield from phrase.split()
