"""The greedy choice of centres to which every row is near."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from synfer_rt.coresets.blocks import mean_of, squares_to


def k_center(
    features: np.ndarray, count: int, on_chosen: Callable[[], None] = lambda: None
) -> np.ndarray:
    """An order of `count` rows of [n, d] in which each is the farthest from those before.

    Int64 [count], `count` from 1 to n. Each prefix of k rows has a covering radius of at most twice
    the least that k rows can have (Gonzalez, Theoretical Computer Science 38, 1985), wherever it
    begins; it begins with the row that is nearest to the mean. As the core-set of a training set it
    is the greedy choice of Sener and Savarese (arXiv 1708.00489, algorithm 1). Of equally far rows
    the first counts. `on_chosen` is called after each choice.

    A choice costs one pass over the rows: n * d * `count` differences in all.
    """
    least = np.empty(len(features), np.float32)
    for part, squares in squares_to(features, mean_of(features)):
        least[part] = squares
    centre = int(least.argmin())
    least[:] = np.inf
    order = np.empty(count, np.int64)
    for place in range(count):
        order[place] = centre
        for part, squares in squares_to(features, features[centre]):
            np.minimum(least[part], squares, out=least[part])
        least[centre] = -1  # it stays below all others, of which some may be equal to it
        centre = int(least.argmax())
        on_chosen()
    return order
