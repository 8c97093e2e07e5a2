"""Distances among images in a judge's features."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch", reason="judging needs PyTorch (synfer-rt[reference])")

from reference import classifiers, renders
from reference.evaluation import diversity
from reference.evaluation.diversity import Nearest


def some_renders(count: int = 40) -> renders.Renders:
    images = np.random.default_rng(0).integers(0, 256, (count, 64, 64, 3), np.uint8)
    return renders.Renders(images, {"identity": np.arange(count)}, "key")


def test_features_are_of_the_judge_before_it_decides() -> None:
    judge = classifiers.NETWORKS["judge"].build().eval()
    features = diversity.pooled_features(judge, some_renders(4).images)
    assert features.shape == (4, 96) and features.std(0).max() > 0


def test_training_features_leave_out_held_out_people_and_are_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    judge, data, calls = classifiers.NETWORKS["judge"].build().eval(), some_renders(), []
    real = diversity.pooled_features
    monkeypatch.setattr(diversity, "pooled_features", lambda *a: calls.append(1) or real(*a))
    first, again = (diversity.training_features(judge, data, tmp_path) for _ in range(2))
    assert len(calls) == 1 and np.array_equal(first, again)
    expected = real(judge, data.images[np.arange(40) % 16 != 0])
    assert np.allclose(first, expected, atol=1e-5)
    other = classifiers.NETWORKS["judge"].build().eval()
    assert not np.allclose(diversity.training_features(other, data, tmp_path), first)


def test_the_nearest_is_found_across_pieces() -> None:
    rng = np.random.default_rng(0)
    stock, queries = rng.normal(size=(50, 6)), rng.normal(size=(9, 6))
    every = np.linalg.norm(queries[:, None] - stock[None], axis=2)
    for at_once in (7, 50):
        found = diversity.nearest(queries, stock, at_once)
        assert np.array_equal(found.rows, every.argmin(1))
        assert np.allclose(found.distances, every.min(1))


def test_a_copy_lies_at_no_distance() -> None:
    stock = np.random.default_rng(0).normal(size=(20, 6))
    found = diversity.nearest(stock[[3, 17]], stock)
    assert found.rows.tolist() == [3, 17] and np.allclose(found.distances, 0)


def test_the_nearer_of_two_is_chosen_for_each() -> None:
    a = Nearest(np.array([1, 2]), np.array([0.5, 0.9]))
    b = Nearest(np.array([7, 8]), np.array([0.6, 0.1]))
    assert a.nearer(b).rows.tolist() == [1, 8]
    found = {"median": 0.3, "quantile_5": pytest.approx(0.12), "least": 0.1}
    assert a.nearer(b).summary(2) == found


def test_the_least_is_that_of_as_many() -> None:
    distances = np.random.default_rng(0).random(50)
    near = Nearest(np.arange(50), distances)
    assert near.summary(50)["least"] == distances.min()
    assert near.summary(1)["least"] == pytest.approx(distances.mean())
    drawn = [np.random.default_rng(i).permutation(distances)[:5].min() for i in range(4000)]
    assert near.summary(5)["least"] == pytest.approx(np.mean(drawn), rel=0.05)


def test_samples_of_another_distribution_are_farther_than_the_floor() -> None:
    rng = np.random.default_rng(0)
    held, classes = rng.normal(size=(400, 5)), np.arange(400) % 8
    half = np.arange(400) < 200

    def distances(samples: np.ndarray) -> dict:
        return diversity.distances(samples, classes[:300], held, classes, half)

    alike = distances(rng.normal(size=(300, 5)))
    narrow = distances(0.3 * rng.normal(size=(300, 5)))
    assert alike["images"] == 200
    floor, half_width = alike["frechet"]["renders"]
    assert abs(alike["frechet"]["samples"][0] - floor) < 3 * half_width
    assert narrow["frechet"]["samples"][0] > floor + 5 * half_width
    assert narrow["pairwise"]["samples"][0] < 0.4 * narrow["pairwise"]["renders"][0]
