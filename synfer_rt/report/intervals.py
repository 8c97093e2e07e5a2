"""Confidence intervals of counts, at 95 %."""

from __future__ import annotations

import math

from synfer_rt.evaluation import intervals


def wilson(hits: int, count: int) -> tuple[float, float]:
    """The interval of a share of `hits` among `count`; (0, 1) of none."""
    return intervals.wilson(hits / count if count else 0.0, count)


def difference(one: tuple[int, int], other: tuple[int, int]) -> tuple[float, float]:
    """The interval of one share minus another, each (hits, count).

    Newcombe's hybrid score interval (1998, method 10), made of the two Wilson intervals.
    """
    (hits, count), (others, of_others) = one, other
    if not count or not of_others:
        return -1.0, 1.0
    p, q = hits / count, others / of_others
    (low_p, high_p), (low_q, high_q) = wilson(hits, count), wilson(others, of_others)
    low = p - q - math.hypot(p - low_p, high_q - q)
    high = p - q + math.hypot(high_p - p, q - low_q)
    return low, high
