"""Intervals and distances against cases with known results."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("scipy", reason="the experiments need synfer-rt[reference]")

from reference.evaluation import statistics


def test_the_interval_of_a_share_is_wilson_s() -> None:
    share, half = statistics.share(np.arange(100) < 90)
    assert share == 0.9
    assert half == pytest.approx((0.9448 - 0.8256) / 2, abs=5e-4)  # Wilson's for 90 of 100


def test_a_perfect_share_still_has_an_interval() -> None:
    assert statistics.share(np.ones(20, bool))[1] > 0.05


def test_a_gain_is_paired() -> None:
    hard = np.random.default_rng(0).random(200)
    gain, half = statistics.gain(hard + 0.1, hard)
    assert gain == pytest.approx(0.1) and half < 1e-9


def test_few_seeds_have_student_s_interval() -> None:
    mean, half = statistics.over_seeds([1.0, 2.0, 3.0])
    assert mean == 2 and half == pytest.approx(4.303 / 3**0.5, rel=1e-3)


def test_the_bootstrap_finds_the_error_of_a_mean() -> None:
    values = np.random.default_rng(1).standard_normal(400)
    half = statistics.bootstrap(lambda rows: float(values[rows].mean()), 400, 400)
    assert half == pytest.approx(statistics.mean(values)[1], rel=0.15)


def test_the_frechet_distance_of_normal_distributions() -> None:
    rng = np.random.default_rng(2)
    a = rng.standard_normal((20_000, 3))
    assert statistics.frechet_distance(a, a) == pytest.approx(0, abs=1e-6)
    # Means 2 apart; deviations 3 and 1 in three dimensions: 4 + 3 * (3 - 1)^2.
    b = np.array([2.0, 0, 0]) + 3 * rng.standard_normal((20_000, 3))
    assert statistics.frechet_distance(a, b) == pytest.approx(16, rel=0.05)


def test_diversity_compares_images_of_one_class_only() -> None:
    features = np.array([[0.0], [1.0], [100.0], [103.0]])
    assert statistics.diversity(features, np.array([0, 0, 1, 1])) == 2.0


def test_a_class_of_one_image_has_no_diversity() -> None:
    features = np.array([[0.0], [1.0], [100.0]])
    assert statistics.diversity(features, np.array([0, 0, 1])) == 1.0
