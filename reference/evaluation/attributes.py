"""Whether images show the age, gender and ancestry that their prompts name."""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import cache
from itertools import product

import numpy as np

from reference.captions import BANDS
from reference.evaluation import statistics
from synfer_rt.vocabulary import prompts

_PERSON = re.compile(r" of an? (.+?)(?: with an? \w+ face)?(?:,|$)")
_CHOICES = np.linspace(0, 1, 6, endpoint=False)
"""Numbers that bring out every synonym of `prompts.describe`, which has up to three of each."""


def _person(prompt: str) -> str:
    found = _PERSON.search(prompt)
    if found is None:
        raise ValueError(f"{prompt!r} is no sentence of prompts.describe")
    return found[1]


@cache
def _people() -> dict[str, tuple[int, ...]]:
    """Every way to name a person, and the bands that it means."""
    people = {}
    for age, gender, ancestry in product(range(4), range(2), (-1, 0, 1, 2)):
        words = "" if ancestry < 0 else prompts.ANCESTRIES[ancestry]
        face = prompts.Attributes(prompts.AGES[age], prompts.GENDERS[gender], words)
        for first, second in product(_CHOICES, repeat=2):
            sentence = prompts.describe(face, None, (first, second, 0.0))
            people[_person(sentence)] = (age, gender, ancestry)
    return people


def described(sentences: Iterable[str]) -> np.ndarray:
    """The bands that sentences of `prompts.describe` name, int64 [n, 3] as in `captions.bands`.

    Each must name an age and a gender, as drawn ones do: others raise KeyError.
    """
    return np.array([_people()[_person(sentence)] for sentence in sentences])


def agreement(
    asked: np.ndarray, read: np.ndarray, people: np.ndarray | None = None
) -> dict[str, dict]:
    """How often read and asked bands, both int64 [n, 3], are the same; -1 asks for nothing.

    For each of BANDS the share with its half-width, and the shares among each age asked for.
    Images of the same of `people`, numbers int64 [n], may be alike.
    """
    report = {}
    for i, name in enumerate(BANDS):
        known = asked[:, i] >= 0
        right, ages = (asked[:, i] == read[:, i])[known], asked[known, 0]
        report[name] = {
            "agreement": statistics.share(right, None if people is None else people[known]),
            "images": len(right),
            "by_age": {
                age: float(right[ages == k].mean())
                for k, age in enumerate(BANDS["age"])
                if (ages == k).any()
            },
        }
    return report
