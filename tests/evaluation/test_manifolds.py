"""Neighbours, manifolds and diversity on constructed points."""

from __future__ import annotations

import numpy as np
import pytest

from synfer_rt.evaluation.diversity import unit, vendi_score, within_class_distance
from synfer_rt.evaluation.moments import Moments
from synfer_rt.evaluation.neighbours import Nearest, manifold, nearest, radii


def test_the_nearest_is_found_across_pieces() -> None:
    rng = np.random.default_rng(0)
    stock, queries = rng.normal(size=(50, 6)), rng.normal(size=(9, 6))
    every = np.linalg.norm(queries[:, None] - stock[None], axis=2)
    for at_once in (7, 50):
        found = nearest(queries, stock, at_once)
        assert np.array_equal(found.rows, every.argmin(1))
        assert np.allclose(found.distances, every.min(1))


def test_a_copy_lies_at_no_distance() -> None:
    stock = 1e3 + np.random.default_rng(0).normal(size=(20, 6))
    found = nearest(stock[[3, 17]], stock)
    assert found.rows.tolist() == [3, 17] and found.distances.tolist() == [0, 0]


def test_images_of_the_same_person_are_not_compared() -> None:
    points, people = np.array([[0.0], [1], [5], [9]]), np.array([0, 0, 1, 1])
    found = nearest(points, points, 3, (people, people))
    assert found.rows.tolist() == [2, 2, 1, 1] and found.distances.tolist() == [5, 4, 4, 8]
    alone = nearest(points, points, 3, (np.zeros(4, int), np.zeros(4, int)))
    assert alone.rows.tolist() == [-1] * 4 and np.isinf(alone.distances).all()


def test_the_nearer_of_two_is_chosen_for_each() -> None:
    a = Nearest(np.array([1, 2]), np.array([0.5, 0.9]))
    b = Nearest(np.array([7, 8]), np.array([0.6, 0.1]))
    assert a.nearer(b).rows.tolist() == [1, 8]


def test_a_radius_is_the_distance_to_the_k_th_other() -> None:
    points = np.array([[0.0], [1], [3], [7]])
    assert radii(points, 1, 3).tolist() == [1, 1, 4, 16]
    assert radii(points, 2, 3).tolist() == [9, 4, 9, 36]


def test_a_set_covers_itself() -> None:
    points = np.random.default_rng(0).integers(0, 10**6, (60, 3)).astype(float)
    found = manifold(points, points, 5, 16)
    assert vars(found) == {"precision": 1, "recall": 1, "density": 1, "coverage": 1}


def test_sets_far_apart_do_not_cover_each_other() -> None:
    points = np.random.default_rng(0).normal(size=(60, 3))
    assert vars(manifold(points, points + 100)) == dict.fromkeys(
        ("precision", "recall", "density", "coverage"), 0
    )


def test_manifolds_by_hand() -> None:
    # k = 1. Real balls: 0 and 2 reach 2, 10 reaches 8. Generated: 1 and 3 reach 2, 30 reaches 27.
    real, made = np.array([[0.0], [2], [10]]), np.array([[1.0], [3], [30]])
    found = manifold(made, real, 1)
    # 1 lies in the balls of 0 and 2 alone (10 - 8 = 2 > 1), 3 in those of 2 and 10, 30 in none.
    assert found.precision == pytest.approx(2 / 3) and found.density == pytest.approx(4 / 3)
    assert found.coverage == 1
    # 0 and 2 lie in the ball of 1 (2 in that of 3 too), 10 in that of 30.
    assert found.recall == 1


def test_a_copied_image_raises_density_but_not_coverage() -> None:
    real = np.arange(50.0)[:, None]
    once = manifold(np.repeat(real[:1], 50, 0), real, 5)
    assert once.precision == 1 and once.coverage < 0.2


def test_distances_are_of_images_of_one_class_only() -> None:
    features = np.array([[0.0], [1.0], [100.0], [103.0]])
    assert within_class_distance(features, np.array([0, 0, 1, 1])) == 2.0


def test_a_class_of_one_image_has_no_diversity() -> None:
    features = np.array([[0.0], [1.0], [100.0]])
    assert within_class_distance(features, np.array([0, 0, 1])) == 1.0
    assert np.isnan(within_class_distance(features, np.arange(3)))


def test_the_vendi_score_counts_images_that_differ() -> None:
    # Orthogonal images count as many, equal ones as one; two groups of sizes 3 and 1 as e^entropy.
    assert vendi_score(Moments.of(np.eye(6))) == pytest.approx(6)
    assert vendi_score(Moments.of(np.repeat(np.eye(6)[:1], 9, 0))) == pytest.approx(1)
    uneven = np.eye(4)[[0, 0, 0, 1]]
    entropy = -(0.75 * np.log(0.75) + 0.25 * np.log(0.25))
    assert vendi_score(Moments.of(uneven)) == pytest.approx(np.exp(entropy))


def test_the_vendi_score_is_that_of_the_kernel_matrix() -> None:
    rows = unit(np.random.default_rng(0).normal(size=(30, 5)))
    values = np.linalg.eigvalsh(rows @ rows.T / 30)
    values = values[values > 1e-12]
    assert vendi_score(Moments.of(rows)) == pytest.approx(np.exp(-(values * np.log(values)).sum()))
