"""The kernel distance of two sets of features (KID; Bińkowski et al., arXiv 1801.01401)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

BLOCK = 1000
"""Images of each side in a block: what papers call the subset size."""
_BLOCKS = 10
"""Of fewer images than BLOCK times so many, blocks are smaller, so that there are so many."""
LEAST = 2 * _BLOCKS
"""The fewest images of each side."""


@dataclass(frozen=True)
class KernelDistance:
    """The mean over `blocks` of `size` images of each side, and its standard error."""

    value: float
    standard_error: float
    blocks: int
    size: int


def kernel_distance(a: np.ndarray, b: np.ndarray) -> KernelDistance:
    """The distance of rows [n, d] and [m, d] in random order, n and m at least LEAST.

    The mean of the unbiased estimates of disjoint blocks. It is unbiased at any number of images;
    blocks share no image, so that their variation is that of the mean.
    """
    count = min(len(a), len(b))
    size = min(BLOCK, count // _BLOCKS)
    blocks = count // size
    values = [
        squared_discrepancy(a[k * size : (k + 1) * size], b[k * size : (k + 1) * size])
        for k in range(blocks)
    ]
    error = float(np.std(values, ddof=1)) / blocks**0.5
    return KernelDistance(float(np.mean(values)), error, blocks, size)


def squared_discrepancy(a: np.ndarray, b: np.ndarray) -> float:
    """The unbiased estimate of the squared maximum mean discrepancy of [n, d] and [n, d], n >= 2.

    The kernel is (x y / d + 1)^3. (Gretton et al., JMLR 13, 2012, equation 3.) It may be below 0.
    """
    a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
    n, m = len(a), len(b)
    of_a, of_b = _kernel(a, a), _kernel(b, b)
    within = (of_a.sum() - np.trace(of_a)) / (n * (n - 1))
    within += (of_b.sum() - np.trace(of_b)) / (m * (m - 1))
    return float(within - 2 * _kernel(a, b).mean())


def _kernel(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return (a @ b.T / a.shape[1] + 1) ** 3
