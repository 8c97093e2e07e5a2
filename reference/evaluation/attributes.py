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
"""Random numbers that cover every synonym of `prompts.describe`, at most three a word."""


def _person(prompt: str) -> str:
    found = _PERSON.search(prompt)
    if found is None:
        raise ValueError(f"{prompt!r} is not a sentence of prompts.describe")
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

    Raises KeyError for a sentence without an age or a gender, which every drawn one names.
    """
    return np.array([_people()[_person(sentence)] for sentence in sentences])


def agreement(
    asked: np.ndarray, read: np.ndarray, people: np.ndarray | None = None
) -> dict[str, dict]:
    """How often read and requested bands, both int64 [n, 3], are the same; -1 is no request.

    For each of BANDS the share with its half-width, and the share for each requested age. `people`
    int64 [n] numbers the persons; images of one person may be alike.
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
