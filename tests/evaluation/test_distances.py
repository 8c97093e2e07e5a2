"""FID and KID against closed forms."""

from __future__ import annotations

import numpy as np
import pytest

from synfer_rt.evaluation.feature_set import PARTS, FeatureSet
from synfer_rt.evaluation.frechet import frechet_distance, frechet_distances, without_bias
from synfer_rt.evaluation.kernel_distance import kernel_distance, squared_discrepancy
from synfer_rt.evaluation.moments import Moments, joined


def exact(mean: list[float], covariance: np.ndarray) -> Moments:
    """The moments of a normal distribution, as those of very many rows."""
    count = 10**9
    return Moments(count, np.array(mean, float), covariance * (count - 1))


def test_the_distance_of_two_normal_distributions_is_the_closed_form() -> None:
    # In one basis: |m|^2 + sum (sqrt(a) - sqrt(b))^2, whatever the basis.
    turn, _ = np.linalg.qr(np.random.default_rng(0).normal(size=(3, 3)))
    a = exact([1, 2, 2], turn @ np.diag([1.0, 4.0, 9.0]) @ turn.T)
    b = exact([0, 0, 0], turn @ np.diag([4.0, 4.0, 1.0]) @ turn.T)
    assert frechet_distance(a, b) == pytest.approx(9 + 1 + 0 + 4)
    assert frechet_distance(b, a) == pytest.approx(14)
    assert frechet_distance(a, a) == pytest.approx(0, abs=1e-9)


def test_the_distance_where_the_covariances_do_not_commute() -> None:
    # 2x2: tr (A B)^(1/2) = sqrt(tr AB + 2 sqrt(det AB)).
    first, second = np.array([[2.0, 1], [1, 2]]), np.diag([1.0, 5])
    product = first @ second
    root = np.sqrt(np.trace(product) + 2 * np.sqrt(np.linalg.det(product)))
    found = frechet_distance(exact([0, 0], first), exact([0, 0], second))
    assert found == pytest.approx(4 + 6 - 2 * root)


def test_fewer_images_than_dimensions_have_a_distance() -> None:
    rows = np.random.default_rng(0).normal(size=(5, 20))
    assert frechet_distance(Moments.of(rows), Moments.of(rows)) == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("seed", range(4))
def test_rounding_makes_no_distance_negative(seed: int) -> None:
    rows = np.random.default_rng(seed).normal(size=(6, 64))
    assert 0 <= frechet_distance(Moments.of(rows), Moments.of(rows)) < 1e-5


def test_moments_of_parts_are_those_of_all() -> None:
    rows = 1e4 + np.random.default_rng(0).normal(size=(101, 4))
    found = joined([Moments.of(rows[:1]), Moments.of(rows[1:40]), Moments.of(rows[40:])])
    assert found.count == 101
    assert np.allclose(found.mean, rows.mean(0), rtol=1e-14)
    assert np.allclose(found.covariance, np.cov(rows, rowvar=False), rtol=1e-9)
    assert np.allclose(found.second_moment, rows.T @ rows / 101)


def test_the_bias_of_few_images_is_taken_off() -> None:
    assert without_bias([100, 200, 400], [3 + 50 / n for n in (100, 200, 400)]) == pytest.approx(3)
    # Of the same distribution the true distance is 0; that of n images is about c / n.
    rng = np.random.default_rng(0)
    real = exact([0.0] * 8, np.eye(8))
    parts = [Moments.of(rng.normal(size=(400, 8))) for _ in range(5)]
    growing = [joined(parts[:k]) for k in range(1, 6)]
    values = frechet_distances(growing, real)
    assert abs(without_bias([m.count for m in growing], values)) < values[-1] / 2


def test_a_kernel_distance_is_the_sum_over_pairs() -> None:
    a, b = np.array([[1.0, 1], [0, 2]]), np.array([[2.0, 0], [0, 0]])
    # d = 2; k(a1,a2) = (2/2+1)^3 = 8, k(b1,b2) = 1; k(a1,b1) = 8, k(a2,b1) = 1, with b2 1 and 1.
    assert squared_discrepancy(a, b) == pytest.approx(8 + 1 - 2 * (8 + 1 + 1 + 1) / 4)


def test_the_kernel_distance_is_unbiased_at_any_number_of_images() -> None:
    rng = np.random.default_rng(0)
    some = [kernel_distance(*rng.normal(size=(2, 60, 4))) for _ in range(200)]
    values = np.array([one.value for one in some])
    error = values.std(ddof=1) / len(values) ** 0.5
    assert abs(values.mean()) < 3 * error
    # And its standard error is how far it scatters.
    assert np.mean([one.standard_error for one in some]) == pytest.approx(values.std(), rel=0.2)
    assert some[0].blocks == 10 and some[0].size == 6


def test_a_kernel_distance_of_other_images_is_far_above_its_error() -> None:
    rng = np.random.default_rng(1)
    found = kernel_distance(rng.normal(size=(500, 4)), 1 + rng.normal(size=(500, 4)))
    assert found.value > 5 * found.standard_error > 0


def test_features_do_not_depend_on_how_many_are_added_at_once(tmp_path) -> None:
    rows = np.random.default_rng(0).normal(size=(2500, 3)).astype("f4")
    sets = [FeatureSet(100, 5, tmp_path / str(n)) for n in (32, 700)]
    for one, at_once in zip(sets, (32, 700), strict=True):
        for begin in range(0, len(rows), at_once):
            one.add(rows[begin : begin + at_once])
    first, second = sets
    assert np.array_equal(first.subset.rows, second.subset.rows)
    assert np.array_equal(first.moments.scatter, second.moments.scatter)
    assert np.array_equal(first.unit_moments.scatter, second.unit_moments.scatter)
    assert np.array_equal(first.every, rows) and np.array_equal(second.every, rows)
    assert np.array_equal(first.subset.rows, rows[first.subset.numbers])
    assert len(set(first.subset.numbers.tolist())) == 100
    growing = first.growing_moments()
    assert len(growing) == PARTS and growing[-1].count == 2500
    assert np.allclose(growing[-1].covariance, np.cov(rows, rowvar=False))


def test_a_subset_is_drawn_from_all_rows_alike() -> None:
    hits = np.zeros(400)
    for seed in range(100):
        one = FeatureSet(40, seed)
        one.add(np.arange(400)[:, None])
        hits[one.subset.numbers] += 1
    assert hits.reshape(4, 100).sum(1) == pytest.approx([1000] * 4, abs=100)
