"""Shares, correlations and accuracy, with their intervals."""

from __future__ import annotations

import numpy as np
import pytest

from synfer_rt.evaluation.confusion import accuracy
from synfer_rt.evaluation.intervals import of_correlation, wilson
from synfer_rt.evaluation.paired_intensities import PRESENT, PairedIntensities


@pytest.mark.parametrize(
    "right, of, low, high",
    [(90, 100, 0.8256, 0.9448), (5, 100, 0.0215, 0.1118), (20, 20, 0.8389, 1), (0, 20, 0, 0.1611)],
)
def test_the_interval_of_a_share_is_wilson_s(right, of, low, high) -> None:
    assert wilson(right / of, of) == pytest.approx((low, high), abs=5e-4)


def test_the_interval_is_exact() -> None:
    # Wilson (1927) by the formula with z = 1.959964.
    assert wilson(0.8, 10) == pytest.approx((0.490162, 0.943318), abs=1e-6)
    assert wilson(1, 5)[1] == pytest.approx(1)


def test_nothing_is_known_of_no_cases() -> None:
    assert wilson(0, 0) == (0, 1) and of_correlation(0.5, 3) == (-1, 1)


def test_the_interval_of_a_correlation_is_fisher_s() -> None:
    # z(0.5) = 0.5493, 1.96 / sqrt(100) = 0.196: tanh of 0.3533 and 0.7453.
    assert of_correlation(0.5, 103) == pytest.approx((0.3393, 0.6324), abs=1e-3)
    assert of_correlation(1, 50) == (1, 1)


def test_accuracy_of_a_class_and_of_all() -> None:
    # Classes are matched by name; a judge may know others, and lack some.
    counts = np.array([[8, 2, 0], [1, 3, 0]])
    found = accuracy(counts, ("happy", "sad"), ("happy", "sad", "anger"))
    assert found["share"] == pytest.approx(11 / 14) and found["images"] == 14
    assert found["per_class"]["happy"]["share"] == 0.8
    assert found["macro"] == pytest.approx((0.8 + 0.75) / 2)
    assert found["interval"] == pytest.approx(wilson(11 / 14, 14))
    other = accuracy(counts, ("sad", "fear"), ("happy", "sad", "anger"))
    assert other["per_class"]["sad"]["share"] == 0.2 and other["per_class"]["fear"]["share"] == 0


def test_a_class_without_images_has_no_accuracy() -> None:
    found = accuracy(np.array([[3], [0]]), ("happy", "sad"), ("happy",))
    assert list(found["per_class"]) == ["happy"] and found["macro"] == 1
    none = accuracy(np.zeros((1, 1), int), ("happy",), ("happy",))
    assert none["share"] is None and none["macro"] is None


def test_intensities_agree_as_much_as_they_correlate() -> None:
    rng = np.random.default_rng(0)
    asked = rng.random((200, 3))
    read = np.clip(asked + 0.2 * rng.normal(size=asked.shape), 0, 1)
    asked[:, 2] = 0  # never requested
    pairs = PairedIntensities(3)
    for begin in range(0, 200, 32):
        pairs.add(asked[begin : begin + 32], read[begin : begin + 32])
    for unit in range(2):
        found = pairs.of(unit)
        expected = np.corrcoef(asked[:, unit], read[:, unit])[0, 1]
        assert found["correlation"] == pytest.approx(expected)
        both = ((asked >= PRESENT) & (read >= PRESENT))[:, unit].sum()
        assert found["f1"] == pytest.approx(2 * both / (found["asked"] + found["read"]))
    assert pairs.of(2)["correlation"] is None and pairs.of(2)["f1"] == 0


def test_what_is_always_the_same_has_no_correlation() -> None:
    pairs = PairedIntensities(1)
    pairs.add(np.full((50, 1), 0.3), np.random.default_rng(0).random((50, 1)))
    assert pairs.of(0)["correlation"] is None
