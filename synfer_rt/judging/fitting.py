"""A calibration from the opinions of annotators on labelled images."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from synfer_rt.judging import temperature
from synfer_rt.judging.calibration import Calibration
from synfer_rt.judging.rounding import DECIMALS
from synfer_rt.judging.temperature import fitted_temperature, log_loss, logarithms, tempered
from synfer_rt.judging.voting import Opinion, average
from synfer_rt.vocabulary import label_schemes

_PART = 4
"""One in so many images of a class fits temperatures; the others fit thresholds."""


@dataclass(frozen=True)
class Fitted:
    """A calibration, and how it does on the images that fitted no temperature.

    `images` are the numbers of images by annotator that fitted its temperature, `fitted` those for
    the vote. `losses` are the vote's mean negative log-likelihoods, in nats: with all temperatures
    1, and with those found.
    """

    calibration: Calibration
    images: dict[str, int]
    fitted: int
    losses: tuple[float, float]


def parts(names: Sequence[str], truth: Sequence[str]) -> np.ndarray:
    """Which of N images fit temperatures, bool [N]: a fixed random quarter of each class.

    It follows from the images' `names`, so their order does not matter.
    """
    chosen = np.zeros(len(names), bool)
    for label in sorted(set(truth)):
        rows = [i for i, one in enumerate(truth) if one == label]
        rows.sort(key=lambda i: (hashlib.sha256(names[i].encode()).digest(), i))
        chosen[rows[: len(rows) // _PART]] = True
    return chosen


def fit(
    opinions: Sequence[Opinion], scheme: str, names: Sequence[str], truth: Sequence[str]
) -> Fitted:
    """The calibration of a vote on the classes of `scheme`.

    `truth` are the true classes of N images, `names` their names. A temperature for which there are
    fewer than `temperature.FEWEST` images is 1.
    """
    first = parts(names, truth)
    opinions = [opinion.mapped_to(scheme) for opinion in opinions]
    temperatures: dict[str, float] = {}
    images: dict[str, int] = {}
    for opinion in opinions:
        classes = label_schemes.scheme(opinion.scheme)
        rows = [i for i in np.flatnonzero(first).tolist() if truth[i] in classes]
        known = np.array([classes.index(truth[i]) for i in rows], int)
        temperatures[opinion.annotator] = _temperature(opinion.probabilities[rows], known)
        images[opinion.annotator] = len(rows)
    before = average(opinions, scheme)
    mean = average([opinion.at(temperatures) for opinion in opinions], scheme)
    columns = np.array([label_schemes.scheme(scheme).index(label) for label in truth], int)
    vote = _temperature(mean[first], columns[first])
    after = tempered(mean, vote).round(DECIMALS)
    scores = {
        label: tuple(sorted(after[~first & (columns == i), i].tolist()))
        for i, label in enumerate(label_schemes.scheme(scheme))
    }
    losses = log_loss(before[~first], columns[~first]), log_loss(after[~first], columns[~first])
    return Fitted(Calibration(temperatures, vote, scores), images, int(first.sum()), losses)


def _temperature(probabilities: np.ndarray, classes: np.ndarray) -> float:
    if len(classes) < temperature.FEWEST:
        return 1.0
    return round(fitted_temperature(logarithms(probabilities), classes), DECIMALS)
