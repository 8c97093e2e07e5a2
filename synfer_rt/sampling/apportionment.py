"""Whole numbers from shares, and an order in which every prefix has the shares of the whole."""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from fractions import Fraction
from math import gcd

import numpy as np


def apportion(total: int, weights: Sequence[float]) -> list[int]:
    """Whole numbers in proportion to `weights` that add up to `total`, by the largest remainder.

    Hamilton's method: each gets its share rounded down, and what is left goes to the largest
    remainders, of equal ones to the first. Weights are 0 or more, and not all of them are 0. They
    count as the decimals that they are written as, so 0.3 of 10 is 3.
    """
    exact = [Fraction(str(weight)) for weight in weights]
    whole = sum(exact)
    shares = [total * weight / whole for weight in exact]
    numbers = [int(share) for share in shares]
    by_remainder = sorted(range(len(shares)), key=lambda i: numbers[i] - shares[i])
    for i in by_remainder[: total - sum(numbers)]:
        numbers[i] += 1
    return numbers


def turns(counts: Sequence[int]) -> np.ndarray:
    """Whose turn it is at each of sum(counts) places: a number from 0 to len(counts) - 1, uint8.

    Each has exactly its count of turns in the whole, and in every prefix less than one turn more or
    less than its share of it. No order has a smaller bound for all counts (Tijdeman, "The chairman
    assignment problem", Discrete Mathematics 32, 1980). The order repeats where the counts have a
    common divisor.
    """
    if not (repeats := gcd(*counts)):
        return np.zeros(0, np.uint8)
    once = [count // repeats for count in counts]
    return np.tile(_order(once), repeats)


def _order(counts: Sequence[int]) -> np.ndarray:
    """The order of `turns`: at each place the turn that is soonest due of those that may begin.

    With m = 2k - 2 for k candidates, the j-th turn of one with the share s may come from place
    (j - 1 + 1 / m) / s on, and is due at place (j - 1 / m) / s, counting places from 1.
    """
    present = [i for i, count in enumerate(counts) if count]
    places, m = sum(counts), 2 * len(present) - 2
    if not m:
        return np.full(places, present[0], np.uint8)
    order = np.empty(places, np.uint8)
    coming = [(-(-places // (m * counts[i])), i, 1) for i in present]  # place, candidate, turn
    heapq.heapify(coming)
    ready: list[tuple[int, int, int]] = []
    for place in range(1, places + 1):
        while coming and coming[0][0] <= place:
            _, i, turn = heapq.heappop(coming)
            heapq.heappush(ready, ((turn * m - 1) * places // (m * counts[i]), i, turn))
        _, i, turn = heapq.heappop(ready)
        order[place - 1] = i
        if turn < counts[i]:
            heapq.heappush(coming, (-(-(turn * m + 1) * places // (m * counts[i])), i, turn + 1))
    return order
