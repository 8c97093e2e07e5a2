"""Rows of an array that may lie in a file, some at a time."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

AT_ONCE = 1024
"""Rows of a block. It is fixed, so that sums are always taken in the same order."""


def blocks(rows: np.ndarray, at_once: int = AT_ONCE) -> Iterator[tuple[slice, np.ndarray]]:
    """Where each block of rows [n, d] lies, and the block as float32 [at_once, d] in memory."""
    for begin in range(0, len(rows), at_once):
        part = slice(begin, min(begin + at_once, len(rows)))
        yield part, np.ascontiguousarray(rows[part], np.float32)


def mean_of(rows: np.ndarray) -> np.ndarray:
    """The mean of rows [n, d], n at least 1: float64 [d]."""
    total = np.zeros(rows.shape[1])
    for _, block in blocks(rows):
        total += block.sum(0, dtype=np.float64)
    return total / len(rows)


def squares_to(rows: np.ndarray, point: np.ndarray) -> Iterator[tuple[slice, np.ndarray]]:
    """Squared Euclidean distances of rows [n, d] to a point [d], block by block.

    They are sums of squared differences, so that equal rows are at the distance 0.
    """
    for part, block in blocks(rows):
        apart = block - point.astype(np.float32)
        yield part, np.einsum("ij,ij->i", apart, apart)
