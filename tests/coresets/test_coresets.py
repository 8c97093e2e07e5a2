"""Core-sets against their definitions, on small arrays where every choice can be tried."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest

from synfer_rt.coresets.blocks import AT_ONCE
from synfer_rt.coresets.covering import covering
from synfer_rt.coresets.herding import herding
from synfer_rt.coresets.k_center import k_center


def rows(count: int, dimensions: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(3, 1, (count, dimensions)).astype(np.float32)


def radius(features: np.ndarray, chosen) -> float:
    """The covering radius, by its definition."""
    apart = features[:, None].astype(float) - features[list(chosen)].astype(float)
    return float(np.linalg.norm(apart, axis=2).min(1).max())


@pytest.mark.parametrize("seed", range(4))
def test_k_center_covers_within_twice_the_least_radius(seed: int):
    features = rows(11, 2, seed)
    for count in range(1, 6):
        least = min(radius(features, chosen) for chosen in combinations(range(11), count))
        assert radius(features, k_center(features, count)) <= 2 * least + 1e-6


def test_k_center_begins_at_the_mean_and_takes_the_farthest():
    features = rows(40, 5)
    order = k_center(features, 12)
    assert order[0] == np.linalg.norm(features - features.mean(0), axis=1).argmin()
    for k in range(1, 12):
        apart = np.linalg.norm(features[:, None] - features[order[:k]], axis=2).min(1)
        assert order[k] == apart.argmax()


def test_herding_takes_what_brings_the_mean_nearest():
    features = rows(40, 5)
    mean, left, total = features.astype(float).mean(0), list(range(40)), np.zeros(5)
    for k, row in enumerate(herding(features, 40), 1):
        errors = [np.linalg.norm(mean - (total + features[i]) / k) for i in left]
        assert row == left[int(np.argmin(errors))]
        left.remove(row)
        total += features[row]


def test_of_rows_of_one_length_herding_is_the_update_of_welling():
    features = rows(60, 4) - 3
    features /= np.linalg.norm(features, axis=1, keepdims=True)
    mean = features.astype(float).mean(0)
    weights, left = mean.copy(), list(range(60))
    for row in herding(features, 20):
        assert row == left[int(np.argmax(features[left] @ weights))]
        left.remove(row)
        weights += mean - features[row]


def test_herding_finds_the_mean_faster_than_chance():
    features = rows(2000, 8)
    mean, order = features.mean(0), herding(features, 200)
    errors = [np.linalg.norm(features[order[:k]].mean(0) - mean) for k in (1, 10, 50, 200)]
    assert errors == sorted(errors, reverse=True)
    by_chance = [np.linalg.norm(features[k : k + 200].mean(0) - mean) for k in range(0, 2000, 200)]
    assert errors[-1] < min(by_chance) / 5


@pytest.mark.parametrize("choose", [k_center, herding])
def test_a_choice_begins_every_larger_one_and_takes_each_row_once(choose):
    features = rows(30, 3)
    every = choose(features, 30)
    assert sorted(every) == list(range(30))
    assert list(choose(features, 7)) == list(every[:7])


def test_k_center_chooses_rows_that_are_there_already_after_all_others():
    features = np.repeat(rows(4, 3), [5, 1, 1, 1], axis=0)
    order = k_center(features, 8)
    assert sorted(order) == list(range(8))
    assert covering(features, order).radii[3] == 0


@pytest.mark.parametrize("choose", [k_center, herding])
def test_blocks_of_a_mapped_file_give_what_one_array_gives(choose, tmp_path):
    features = rows(AT_ONCE + 30, 3)
    records = np.zeros(len(features), [("index", "<i8"), ("features", "<f4", (3,))])
    records["features"] = features
    records.tofile(tmp_path / "rows")
    mapped = np.memmap(tmp_path / "rows", records.dtype, "r")["features"]
    assert list(choose(mapped, 20)) == list(choose(features, 20))
    last = features[AT_ONCE:]
    assert set(choose(last, 5)) != set(choose(features, 5))


def test_covering_is_the_radius_and_mean_distance_of_every_prefix(monkeypatch):
    monkeypatch.setattr("synfer_rt.coresets.covering._MOST", 64)  # so that there are many blocks
    features, order = rows(50, 4), np.array([7, 30, 2, 2, 49])
    found = covering(features, order)
    for k in range(1, 6):
        apart = np.linalg.norm(features[:, None] - features[order[:k]], axis=2).min(1)
        assert found.radii[k - 1] == pytest.approx(apart.max(), rel=1e-5)
        assert found.distances[k - 1] == pytest.approx(apart.mean(), rel=1e-5)
    assert covering(features, np.arange(50)).radii[-1] == 0
