"""Prompts with placeholders, such as `a photo of a {age} {gender} with a {expression} face`."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from string import Formatter

from synfer_rt.vocabulary import prompts

KNOWN: Mapping[str, tuple[str, ...]] = {
    "age": prompts.AGES,
    "gender": prompts.GENDERS,
    "ancestry": prompts.ANCESTRIES,
    "eyes": prompts.EYES,
    "pose": prompts.POSES,
    "light": prompts.LIGHTS,
    "background": prompts.BACKGROUNDS,
}
"""The attributes that drawn sentences name, with their words; an empty word says nothing."""
OF_THE_LABEL = ("expression", "label")
"""Placeholders of every template: a word for the expression, drawn among synonyms, and its name."""
PERSON, OF_A_PERSON = "person", ("age", "gender", "ancestry")
"""The placeholder of a person in words, such as `young African woman`, and what it says."""

_ARTICLE = re.compile(r"(?:^|(?<=[\s,(]))(a|an) $", re.IGNORECASE)
_MARK = "\0"
"""What stands before an article that is to fit the next word."""


@dataclass(frozen=True)
class Template:
    """A prompt with the names of attributes in braces; a brace itself is written twice."""

    text: str

    @cached_property
    def parts(self) -> tuple[tuple[str, str | None], ...]:
        """Each placeholder's name after the text before it; the last may be None.

        Raises ValueError for braces that do not hold the name of an attribute.
        """
        parts: list[tuple[str, str | None]] = []
        for literal, name, form, conversion in Formatter().parse(self.text):
            if form or conversion or (name is not None and not name.isidentifier()):
                raise ValueError(f"{{{name}}} is not the name of an attribute")
            parts.append((literal, name))
        return tuple(parts)

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the placeholders, each once, in their order."""
        return tuple(dict.fromkeys(name for _, name in self.parts if name is not None))

    def fill(self, words: Mapping[str, str]) -> str:
        """The prompt with these words for the placeholders.

        An article before a placeholder fits the word that follows. A word that is empty leaves
        neither a second space nor a comma that separates nothing.
        """
        text = ""
        for literal, name in self.parts:
            word = "" if name is None else words[name]
            text += (literal if name is None else _ARTICLE.sub(rf"{_MARK}\1 ", literal)) + word
        text = re.sub(r"\s*,(?:\s*,)+", ",", " ".join(text.split()).replace(" ,", ","))
        text = text.removeprefix(",").removesuffix(",").strip()
        return re.sub(rf"{_MARK}(an?)(?=[\s,]*(\w?))", _fitting, text, flags=re.IGNORECASE)


def _fitting(article: re.Match[str]) -> str:
    """An article in the form that the letter after it takes."""
    fitting = "an" if article[2].lower() in tuple("aeiou") else "a"
    return fitting.capitalize() if article[1][0].isupper() else fitting
