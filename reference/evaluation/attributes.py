"""Whether images show the age, gender and ancestry that their prompts name."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from reference.captions import BANDS
from reference.evaluation import statistics
from synfer_rt.vocabulary.described_people import described_person


def described(sentences: Iterable[str]) -> np.ndarray:
    """The bands that sentences of `prompts.describe` name, int64 [n, 3] as in `captions.bands`.

    Raises ValueError for another sentence, and for one without an age or a gender, which every
    drawn one names.
    """
    return np.array([_bands(sentence) for sentence in sentences])


def _bands(sentence: str) -> list[int]:
    person = described_person(sentence)
    if person is None:
        raise ValueError(f"{sentence!r} is not a sentence of prompts.describe that names an age")
    return [names.index(person[name]) if person[name] else -1 for name, names in BANDS.items()]


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
