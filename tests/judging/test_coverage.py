"""The coverage of label sets: as split-conformal prediction has it, and on held-out renders.

`held_out_renders.npz` is what `reference.held_out_opinions` writes: the opinions of the shipped
model's three annotators on 664 renders of 170 people that no network was trained on.
"""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest

from synfer_rt.judging.calibration import Calibrated, threshold
from synfer_rt.judging.fitting import fit
from synfer_rt.judging.voting import Opinion, vote
from synfer_rt.vocabulary import label_schemes

SCHEME = "affectnet-8"
CLASSES = label_schemes.scheme(SCHEME)


def left_out(fitting: int, coverage: float) -> int:
    """k of split-conformal prediction: how many of n + 1 exchangeable scores may lie below."""
    return math.floor(round((fitting + 1) * (1 - coverage), 9))


def covered(images: int, fitting: int, coverage: float) -> np.ndarray:
    """The probabilities of 0 to `images` covered ones: a beta-binomial distribution.

    The coverage of a threshold that `fitting` images gave has the distribution Beta(n + 1 - k, k)
    (Vovk, ACML 2012, proposition 2a), and given it the covered images are binomial.
    """
    k = left_out(fitting, coverage)
    a, b, log = fitting + 1 - k, k, math.lgamma
    return np.array(
        [
            math.exp(
                log(images + 1) - log(x + 1) - log(images - x + 1)
                + log(x + a) + log(images - x + b) - log(images + a + b)
                + log(a + b) - log(a) - log(b)
            )
            for x in range(images + 1)
        ]
    )  # fmt: skip


def interval(images: int, fitting: int, coverage: float, error: float) -> tuple[int, int]:
    """The numbers of covered images between which all but `error` of the probability lies."""
    below = covered(images, fitting, coverage).cumsum()
    return int((below <= error / 2).sum()), int((below < 1 - error / 2).sum())


@pytest.mark.parametrize(("fitting", "coverage"), [(9, 0.9), (19, 0.8), (45, 0.9), (60, 0.95)])
def test_exchangeable_scores_are_covered_with_the_exact_distribution(
    fitting: int, coverage: float
) -> None:
    draws, images = np.random.default_rng(0), 20
    found = np.zeros(images + 1)
    for _ in range(4000):
        scores = draws.random(fitting + images)
        least = threshold(sorted(scores[:fitting].tolist()), coverage)
        found[(scores[fitting:] >= least).sum()] += 1
    wanted = covered(images, fitting, coverage)
    mean = images * (1 - left_out(fitting, coverage) / (fitting + 1))
    assert (wanted * np.arange(images + 1)).sum() == pytest.approx(mean)
    assert mean >= images * coverage - 1e-9
    # 4000 draws lie about 0.03 from their distribution; that of the next rank lies 0.09 and more.
    assert np.abs(found / 4000 - wanted).sum() / 2 < 0.05


def test_equal_scores_are_covered_more_often() -> None:
    draws, covers = np.random.default_rng(1), 0
    for _ in range(2000):
        scores = draws.random(31).round(1)
        covers += int(scores[30] >= threshold(sorted(scores[:30].tolist()), 0.9))
    assert covers / 2000 > 0.9 + 0.02


@pytest.fixture(scope="module")
def renders() -> dict[str, np.ndarray]:
    with np.load(Path(__file__).with_name("held_out_renders.npz")) as arrays:
        found = dict(arrays)
    shares = found["probabilities"].astype(np.float64)
    return {**found, "probabilities": shares / shares.sum(-1, keepdims=True)}


def members(renders: dict[str, np.ndarray], rows: np.ndarray) -> list[Opinion]:
    return [Opinion(f"{i}", SCHEME, of[rows]) for i, of in enumerate(renders["probabilities"])]


def sets_of(
    renders: dict[str, np.ndarray], first: bool, coverage: float
) -> tuple[Calibrated, dict[str, int], np.ndarray, np.ndarray]:
    """A calibration on every second person, how many images fitted it by class, and the others.

    The latter are their classes [n], and whether their sets hold these, bool [n].
    """
    fits = (renders["people"] % 2 == 0) == first
    here, there = np.flatnonzero(fits), np.flatnonzero(~fits)
    labels = [CLASSES[i] for i in renders["truth"]]
    mine, names = [labels[i] for i in here], list(map(str, here))
    calibration = fit(members(renders, here), SCHEME, names, mine).calibration
    sets = calibration.at(coverage)
    said = vote(members(renders, there), SCHEME, [None] * len(there), calibrated=sets)
    held = [labels[i] in (v.label_set or ()) for i, v in zip(there, said, strict=True)]
    counts = {name: len(scores) for name, scores in calibration.scores.items()}
    return sets, counts, renders["truth"][there], np.array(held)


@pytest.mark.parametrize("coverage", [0.8, 0.9])
def test_each_class_of_other_people_is_covered_within_its_interval(
    renders: dict[str, np.ndarray], coverage: float
) -> None:
    """Within 99 % intervals for all classes together, which allow for the images that fitted."""
    error = 0.01 / (2 * len(CLASSES))
    for first in (True, False):
        _, fitting, truth, held = sets_of(renders, first, coverage)
        for number, name in enumerate(CLASSES):
            mine = held[truth == number]
            low, high = interval(len(mine), fitting[name], coverage, error)
            assert 0 < low <= mine.sum() <= high, (name, first)


def test_all_classes_together_are_covered_about_as_stated(renders: dict[str, np.ndarray]) -> None:
    for coverage in (0.8, 0.9):
        held = np.concatenate([sets_of(renders, first, coverage)[3] for first in (True, False)])
        assert coverage - 0.03 < held.mean() < coverage + 0.05


def test_sets_of_more_coverage_hold_those_of_less(renders: dict[str, np.ndarray]) -> None:
    less, more = (sets_of(renders, True, coverage)[0].thresholds for coverage in (0.8, 0.9))
    assert all(more[name] <= less[name] for name in CLASSES)
