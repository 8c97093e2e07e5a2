"""Whole numbers from shares, and orders whose every prefix has the shares of the whole."""

from __future__ import annotations

import random
from collections.abc import Sequence

import numpy as np
import pytest

from synfer_rt.sampling.apportionment import apportion, turns
from synfer_rt.vocabulary.class_counts import CLASS_COUNTS


def furthest(counts: Sequence[int]) -> float:
    """How far any prefix of the order lies from the shares, in turns."""
    order, total = turns(counts), sum(counts)
    so_far = np.cumsum(order[:, None] == np.arange(len(counts)), axis=0)
    shares = np.arange(1, total + 1)[:, None] * np.array(counts)
    return float(np.abs(so_far * total - shares).max() / total)


@pytest.mark.parametrize(
    ("total", "weights", "numbers"),
    [
        (10, [0.5, 0.3, 0.2], [5, 3, 2]),
        (10, [1, 1, 1], [4, 3, 3]),
        (1, [0.2, 0.8], [0, 1]),
        (7, [0, 1], [0, 7]),
        (0, [1, 2], [0, 0]),
        # Hamilton's method: 0.6, 0.7 and 8.7 of 10 give the two that are left to b and c
        (10, [0.06, 0.07, 0.87], [0, 1, 9]),
        (12_271, list(CLASS_COUNTS["raf-db"].values()), list(CLASS_COUNTS["raf-db"].values())),
    ],
)
def test_the_largest_remainders_get_what_is_left(
    total: int, weights: list[float], numbers: list[int]
):
    assert apportion(total, weights) == numbers


def test_numbers_are_within_one_of_the_share_and_add_up():
    chance = random.Random(1)
    for _ in range(200):
        weights = [chance.choice([0.0, chance.random(), 1e-9, 5.0]) for _ in range(6)] + [1.0]
        total = chance.randrange(10_000)
        numbers = apportion(total, weights)
        assert sum(numbers) == total
        for number, weight in zip(numbers, weights, strict=True):
            assert abs(number - total * weight / sum(weights)) < 1 + 1e-6


def test_every_order_has_its_counts_and_every_prefix_its_shares():
    chance = random.Random(2)
    for _ in range(150):
        counts = [chance.choice([0, 1, 2, chance.randrange(200)]) for _ in range(8)] + [1]
        order = turns(counts)
        assert np.bincount(order, minlength=len(counts)).tolist() == counts
        assert furthest(counts) < 1


def test_the_order_of_affectnets_shares_never_strays_by_an_image():
    assert furthest(apportion(10_000, list(CLASS_COUNTS["affectnet-8"].values()))) < 1


def test_equal_counts_take_turns_and_an_order_repeats():
    assert turns([2, 2, 2]).tolist() == [0, 1, 2, 0, 1, 2]
    assert turns([30, 10]).tolist() == turns([3, 1]).tolist() * 10
    assert turns([0, 4]).tolist() == [1, 1, 1, 1]
    assert turns([]).tolist() == turns([0, 0]).tolist() == []
