"""Means with 95 % intervals."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from scipy import stats

from synfer_rt.evaluation.intervals import wilson

Z = 1.96


def share(right: np.ndarray, groups: np.ndarray | None = None) -> tuple[float, float]:
    """Share of true values in bool [n], and the distance to the farther end of its Wilson interval.

    That interval is not centred on the share: for 20 true values of 20 it is 0.84 to 1. Where the
    values within one of `groups` are alike, as in `mean`, n is the effective sample size.
    """
    n, p = float(len(right)), float(np.mean(right))
    if groups is not None and 0 < p < 1:
        n /= max(1.0, n * (mean(right, groups)[1] / Z) ** 2 / (p * (1 - p)))
    low, high = wilson(p, n)
    return p, max(p - low, high - p)


def mean(values: np.ndarray, groups: np.ndarray | None = None) -> tuple[float, float]:
    """Mean of [n] and the half-width of its interval, by the normal distribution.

    Values within one of `groups`, numbers int64 [n] (a person's images, say), may be alike, so
    deviations are summed within each group before they are squared.
    """
    n, centre = len(values), float(np.mean(values))
    _, members = np.unique(np.arange(n) if groups is None else groups, return_inverse=True)
    sums = np.bincount(members, values - centre)
    variance = len(sums) / (len(sums) - 1) * np.square(sums).sum() / n**2
    return centre, float(Z * np.sqrt(variance))


def gain(
    after: np.ndarray, before: np.ndarray, groups: np.ndarray | None = None
) -> tuple[float, float]:
    """Share of bool [n] `after` minus that of `before` in the same n cases, and its half-width.

    Pairing removes the variation between easy and hard cases; `groups` is as in `mean`. Half a case
    is added to each of the four outcomes (Agresti and Min, Statistics in Medicine 24, 2005), so
    that the interval has a width even if no case differs.
    """
    n = len(after)
    gained, half = mean(after.astype(float) - before.astype(float), groups)
    variance = (n * half / Z) ** 2 + 1
    return gained, float(Z * np.sqrt(variance) / (n + 2))


def over_repetitions(values: Sequence[float] | np.ndarray) -> tuple[float, float]:
    """Mean and half-width of its interval by Student's distribution, for a few repetitions."""
    n = len(values)
    quantile = float(stats.t.ppf(0.975, n - 1)) if n > 1 else float("nan")
    spread = float(np.std(values, ddof=1)) if n > 1 else float("nan")
    return float(np.mean(values)), quantile * spread / np.sqrt(n)


def spread(values: Sequence[float] | np.ndarray) -> tuple[float, float]:
    """Mean and standard deviation of the values; this is not an interval of the mean."""
    return float(np.mean(values)), float(np.std(values, ddof=1))


def first_of_each(people: np.ndarray) -> np.ndarray:
    """Row numbers of the first image of every person; `people` int64 [n] says whose each is."""
    _, first = np.unique(people, return_index=True)
    return np.sort(first)


def parted(people: np.ndarray, parts: int, rng: np.random.Generator) -> list[np.ndarray]:
    """Row numbers of images in `parts` of about equally many people; no person is in two.

    `people` int64 [n] numbers the persons. People and images are in random order.
    """
    groups = np.array_split(rng.permutation(np.unique(people)), parts)
    return [rng.permutation(np.flatnonzero(np.isin(people, group))) for group in groups]


def bootstrap(
    statistic: Callable[[np.ndarray], float], count: int, draws: int = 100, seed: int = 0
) -> float:
    """Half-width of the interval of `statistic`, a function of row numbers among `count` rows."""
    rng = np.random.default_rng(seed)
    values = [statistic(rng.integers(0, count, count)) for _ in range(draws)]
    return float(Z * np.std(values, ddof=1))
