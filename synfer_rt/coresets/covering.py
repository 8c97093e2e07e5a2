"""How well the first rows of an order cover all rows."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from synfer_rt.coresets.blocks import blocks

_MOST = 1 << 23
"""Distances that are held at once: 64 MB."""
_ROUNDING = 1e-12
"""Squares below this share of the lengths that cancelled are rounding."""


@dataclass(frozen=True)
class Covering:
    """What k chosen rows leave, for each k: float64 [count].

    `radii` are the largest distances of a row to the nearest chosen one, `distances` the means over
    the rows. Neither rises.
    """

    radii: np.ndarray
    distances: np.ndarray


def covering(features: np.ndarray, order: np.ndarray) -> Covering:
    """How rows [n, d] are covered by the first k of those in `order`, int64 [count].

    Distances are Euclidean. The cost is that of n * d * `count` products.
    """
    chosen = np.asarray(features[order], np.float64)
    lengths = np.square(chosen).sum(1)
    squared, total = np.zeros(len(order)), np.zeros(len(order))
    for _, block in blocks(features, max(1, min(1024, _MOST // len(order)))):
        rows = block.astype(np.float64)
        both = np.square(rows).sum(1)[:, None] + lengths
        squares = both - 2 * (rows @ chosen.T)
        squares[squares < _ROUNDING * both] = 0
        np.minimum.accumulate(squares, 1, out=squares)
        np.maximum(squared, squares.max(0), out=squared)
        total += np.sqrt(squares).sum(0)
    return Covering(np.sqrt(squared), total / len(features))
