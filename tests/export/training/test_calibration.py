"""Calibration against figures that follow from the definitions."""

from __future__ import annotations

import numpy as np
import pytest

from synfer_rt.export.training.calibration import calibration_error, scores


def test_the_calibration_error_weighs_each_bin_s_gap() -> None:
    # Confidences 0.9 (three of four right) and 0.6 (one of two right): two bins of ten.
    probabilities = np.array([[0.9, 0.1]] * 4 + [[0.4, 0.6]] * 2)
    classes = np.array([0, 0, 0, 1, 1, 0])
    gap = 4 / 6 * abs(0.75 - 0.9) + 2 / 6 * abs(0.5 - 0.6)
    assert calibration_error(probabilities, classes, 10) == pytest.approx(gap)


def test_a_bin_s_right_end_belongs_to_it() -> None:
    # 0.5 is in (0, 0.5] and 0.51 in (0.5, 1]: the gaps do not cancel each other.
    probabilities, classes = np.array([[0.5, 0.5], [0.51, 0.49]]), np.array([0, 1])
    found = calibration_error(probabilities, classes, 2)
    assert found == pytest.approx((abs(1 - 0.5) + abs(0 - 0.51)) / 2)


def test_certain_and_right_has_no_error() -> None:
    assert calibration_error(np.eye(3), np.arange(3)) == 0


def test_scores_count_each_class_apart() -> None:
    probabilities = np.array([[0.8, 0.2], [0.8, 0.2], [0.8, 0.2], [0.8, 0.2]])
    found = scores(probabilities, np.array([0, 0, 0, 1]), ["happy", "sad"])
    assert found["accuracy"] == 0.75 and found["balanced_accuracy"] == 0.5
    assert found["recall"] == {"happy": 1.0, "sad": 0.0}
    # Wilson (1927) for three of four, with z = 1.96.
    assert found["accuracy_interval"] == pytest.approx([0.3006, 0.9544], abs=2e-4)
