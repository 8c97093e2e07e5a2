"""Distances among images in a judge's features."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("torch", reason="judging needs PyTorch (synfer-rt[reference])")

from reference import classifiers
from reference.evaluation import diversity
from synfer_rt.evaluation.frechet import frechet_distance
from synfer_rt.evaluation.moments import Moments


def apart(a: np.ndarray, b: np.ndarray) -> float:
    return frechet_distance(Moments.of(a), Moments.of(b))


def test_features_are_of_the_judge_before_it_decides() -> None:
    judge = classifiers.NETWORKS["judge"].build().eval()
    images = np.random.default_rng(0).integers(0, 256, (4, 64, 64, 3), np.uint8)
    features = diversity.pooled_features(judge, images)
    assert features.shape == (4, 96) and features.std(0).max() > 0


def test_every_split_has_other_people_on_each_side() -> None:
    people = np.arange(90) // 3
    held = diversity.held_out(np.zeros((90, 2)), people, 40)
    assert len(held.splits) == diversity.SPLITS and held.size == 40
    for first, second in held.splits:
        assert len(set(first)) == len(set(second)) == 40
        assert not set(people[first]) & set(people[second])
    assert len({tuple(sorted(first)) for first, _ in held.splits}) == diversity.SPLITS
    assert diversity.held_out(np.zeros((90, 2)), people, 99).size == 45


def test_distances_are_to_the_second_side_of_each_split() -> None:
    features = np.random.default_rng(0).normal(size=(60, 3))
    held = diversity.held_out(features, np.arange(60), 20)
    others = features + 1
    first, second = held.splits[3]
    assert held.frechet(others)[3] == apart(others, features[second])
    assert held.frechet()[3] == apart(features[first], features[second])


def test_samples_of_another_distribution_are_farther_than_the_floor() -> None:
    rng = np.random.default_rng(0)
    held, classes, people = rng.normal(size=(400, 5)), np.arange(400) % 8, np.arange(400) // 2
    held += rng.normal(size=(200, 5))[people]  # renders of a person are alike

    def distances(samples: np.ndarray) -> dict:
        return diversity.distances(samples, classes[: len(samples)], held, classes, people)

    alike = distances(2**0.5 * rng.normal(size=(300, 5)))
    narrow = distances(0.4 * rng.normal(size=(300, 5)))
    assert alike["images"] == 200 and alike["splits"] == diversity.SPLITS
    floor, deviation = alike["frechet"]["renders"]
    assert abs(alike["frechet"]["samples"][0] - floor) < 3 * deviation
    assert narrow["frechet"]["samples"][0] > floor + 5 * deviation
    assert narrow["frechet"]["farther"] == 1 and alike["frechet"]["farther"] < 1
    both = narrow["frechet"]
    assert both["difference"][0] == pytest.approx(both["samples"][0] - both["renders"][0])
    assert narrow["pairwise"]["samples"][0] < 0.4 * narrow["pairwise"]["renders"][0]


def test_pairs_of_renders_are_of_different_people() -> None:
    people = np.repeat(np.arange(20), 3)
    held = np.repeat(np.random.default_rng(0).normal(size=(20, 2)), 3, 0)
    found = diversity.distances(held[::3], people[::3] % 2, held, people % 2, people)
    assert found["pairwise"]["renders"] == found["pairwise"]["samples"]
