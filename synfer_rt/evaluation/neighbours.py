"""Nearest neighbours among features, and what they say of two sets."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

AT_ONCE = 4096
"""Rows that are compared at once, which bounds the memory."""


@dataclass(frozen=True)
class Nearest:
    """The nearest row of a stock to each query: numbers int64 [n], distances float64 [n].

    A query with which no row may be compared has the number -1, at an infinite distance.
    """

    rows: np.ndarray
    distances: np.ndarray

    def nearer(self, other: Nearest) -> Nearest:
        """The nearer of two for each query."""
        mine = self.distances <= other.distances
        return Nearest(
            np.where(mine, self.rows, other.rows),
            np.where(mine, self.distances, other.distances),
        )


def nearest(
    queries: np.ndarray,
    stock: np.ndarray,
    at_once: int = AT_ONCE,
    apart: tuple[np.ndarray, np.ndarray] | None = None,
) -> Nearest:
    """For each query [n, d] the nearest row of the stock [m, d], by Euclidean distance.

    The stock may lie in a mapped file. `apart` numbers the persons of queries [n] and stock [m]:
    only pairs of different persons are compared.
    """
    some = np.asarray(queries, np.float64)
    rows, least = np.full(len(some), -1, np.int64), np.full(len(some), np.inf)
    for begin, block in _blocks(stock, at_once):
        squared = squared_distances(some, block)
        if apart is not None:
            theirs = apart[1][begin : begin + len(block)]
            squared[apart[0][:, None] == theirs[None]] = np.inf
        best = squared.argmin(1)
        values = squared[np.arange(len(some)), best]
        nearer = values < least
        rows[nearer], least[nearer] = begin + best[nearer], values[nearer]
    # Squares that nearly cancel say which row is nearest, but not how near it is.
    found = np.flatnonzero(rows >= 0)
    exact = np.full(len(some), np.inf)
    exact[found] = np.linalg.norm(some[found] - stock[rows[found]], axis=1)
    return Nearest(rows, exact)


def squared_distances(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Squared Euclidean distances of rows [n, d] and [m, d], float64 [n, m]."""
    squares = np.square(a).sum(1)[:, None] + np.square(b).sum(1)[None]
    return (squares - 2 * (a @ b.T)).clip(0)


def radii(features: np.ndarray, k: int, at_once: int = AT_ONCE) -> np.ndarray:
    """The squared distance of each row [n, d] to its k-th nearest other one, float64 [n]; n > k."""
    every = np.asarray(features, np.float64)
    found: list[np.ndarray] = []
    for begin, block in _blocks(every, at_once):
        squared = squared_distances(block, every)
        squared[np.arange(len(block)), begin + np.arange(len(block))] = 0
        found.append(np.partition(squared, k, axis=1)[:, k])  # the first is the row itself
    return np.concatenate(found)


@dataclass(frozen=True)
class Manifold:
    """How far generated images cover the real ones, and lie among them."""

    precision: float
    recall: float
    density: float
    coverage: float


def manifold(made: np.ndarray, real: np.ndarray, k: int = 5, at_once: int = AT_ONCE) -> Manifold:
    """Of features of generated images [m, d] and of real ones [n, d], each of more than `k`.

    A set's manifold is the union of balls around its images, each as wide as the distance to the
    k-th nearest other image of the set. Precision is the share of generated images in the real
    manifold, recall the share of real ones in the generated manifold (Kynkäänniemi et al., arXiv
    1904.06991). Density is the number of real balls that hold a generated image, over k, and
    coverage the share of real balls that hold any (Naeem et al., arXiv 2002.09797, equations 4 and
    5). Balls are open, as in the authors' code: so the density of a set in itself is 1.
    """
    made, real = np.asarray(made, np.float64), np.asarray(real, np.float64)
    of_made, of_real = radii(made, k, at_once), radii(real, k, at_once)
    held = np.zeros(len(made), np.int64)
    covered, recalled = np.zeros(len(real), bool), np.zeros(len(real), bool)
    for begin, block in _blocks(made, at_once):
        squared = squared_distances(block, real)
        rows = slice(begin, begin + len(block))
        inside = squared < of_real
        held[rows] = inside.sum(1)
        covered |= inside.any(0)
        recalled |= (squared < of_made[rows, None]).any(0)
    return Manifold(
        float((held > 0).mean()),
        float(recalled.mean()),
        float(held.mean() / k),
        float(covered.mean()),
    )


def _blocks(rows: np.ndarray, at_once: int) -> Iterator[tuple[int, np.ndarray]]:
    for begin in range(0, len(rows), at_once):
        yield begin, np.asarray(rows[begin : begin + at_once], np.float64)
