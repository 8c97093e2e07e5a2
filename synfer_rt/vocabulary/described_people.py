"""Whom a sentence of `prompts.describe` describes: the way back from words to attributes."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import cache
from itertools import product

import numpy as np

from synfer_rt.vocabulary import prompts

OF_A_PERSON: Mapping[str, tuple[str, ...]] = {
    "age": prompts.AGES,
    "gender": prompts.GENDERS,
    "ancestry": prompts.ANCESTRIES,
}
"""What a sentence says of a person, whatever the expression."""
_PERSON = re.compile(r" of an? (.+?)(?: with an? \w+ face)?(?:,|$)")
_CHOICES = np.linspace(0, 1, 6, endpoint=False).tolist()
"""Random numbers that cover every synonym of `prompts.describe`, at most three a word."""


def described_person(sentence: str) -> dict[str, str] | None:
    """The words of OF_A_PERSON that a sentence means; "" is an ancestry that it leaves open.

    None for a sentence that is not of `prompts.describe`, or names no age.
    """
    found = _PERSON.search(sentence)
    return None if found is None else _people().get(found[1])


@cache
def _people() -> dict[str, dict[str, str]]:
    """Every way to name a person, and what it means."""
    people: dict[str, dict[str, str]] = {}
    for age, gender, ancestry in product(prompts.AGES, prompts.GENDERS, ("", *prompts.ANCESTRIES)):
        for first, second in product(_CHOICES, repeat=2):
            words = prompts.person(age, gender, ancestry, (first, second))
            people[words] = {"age": age, "gender": gender, "ancestry": ancestry}
    return people
