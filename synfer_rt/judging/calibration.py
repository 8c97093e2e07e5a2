"""Calibrated votes: temperatures of the annotators, and label sets of stated coverage.

A temperature (temperature.py) makes an annotator's probabilities mean what they say. A label set
holds the true class with a probability of at least the coverage, class by class, if the
images are exchangeable with those that it was fitted on: split-conformal prediction with a
threshold for each class (Vovk, "Conditional validity of inductive conformal predictors", ACML 2012;
Sadinle et al., arXiv 1609.00451). Temperatures and thresholds come from different images.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

from synfer_rt import ranges
from synfer_rt.errors import UserError
from synfer_rt.judging.rounding import DECIMALS

_MARGIN = 10**-DECIMALS


def threshold(scores: Sequence[float], coverage: float) -> float:
    """The least probability with which a class belongs to label sets of this coverage.

    `scores` are the probabilities of the true class in n images of that class, in rising order. It
    is the k-th of them, k = floor((n + 1)(1 - coverage)); 0 for fewer images than
    `images_needed`, so that the class is in every set.
    """
    count = math.floor(round((len(scores) + 1) * (1 - coverage), 9))
    return scores[count - 1] if count else 0.0


def images_needed(coverage: float) -> int:
    """The images of a class from which its sets of this coverage can leave it out."""
    return math.ceil(round(1 / (1 - coverage), 9)) - 1


@dataclass(frozen=True)
class Calibration:
    """What was fitted on labelled images: see the module.

    `temperatures` are those of annotators by name, `vote` that of their vote. `scores` are, by
    class, the vote's probabilities of the true class in images of that class, in rising order.
    """

    temperatures: Mapping[str, float]
    vote: float
    scores: Mapping[str, Sequence[float]]

    def at(self, coverage: float, digest: str = "") -> Calibrated:
        """The calibration at a coverage above 0 and below 1; `digest` is its file's SHA-256.

        Raises UserError for another coverage.
        """
        coverage = checked_coverage(coverage)
        thresholds = {name: threshold(found, coverage) for name, found in self.scores.items()}
        return Calibrated(coverage, self.temperatures, self.vote, thresholds, digest)

    def too_few(self, coverage: float) -> dict[str, int]:
        """The images of each class that has too few for the coverage, so is in every set."""
        needed = images_needed(coverage)
        return {name: len(found) for name, found in self.scores.items() if len(found) < needed}


@dataclass(frozen=True)
class Calibrated:
    """A calibration at a coverage.

    `temperatures` are those of annotators by name, `vote` that of their vote, `thresholds` the
    least probability of each class in a label set, and `digest` the SHA-256 of the file.
    """

    coverage: float
    temperatures: Mapping[str, float]
    vote: float
    thresholds: Mapping[str, float]
    digest: str

    def label_set(self, probabilities: Mapping[str, float]) -> tuple[str, ...]:
        """The classes that a calibrated distribution cannot rule out; there may be none."""
        return tuple(name for name, p in probabilities.items() if p >= self.thresholds[name])

    def recorded(self, label_set: Sequence[str] | None) -> dict[str, Any]:
        """The fields of a record about a label set."""
        held = label_set or ()
        return {"label_set": {name: name in held for name in self.thresholds}} | {
            "coverage": self.coverage
        }


def checked_coverage(value: object) -> float:
    """A coverage as a float. Raises UserError unless it is above 0 and below 1."""
    if ranges.is_real(value, _MARGIN, 1 - _MARGIN):
        return float(cast(float, value))
    raise UserError(f"`coverage` must be above 0 and below 1, got {ranges.shown(value)}.")
