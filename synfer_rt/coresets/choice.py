"""The choice of rows by the name of its method."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from synfer_rt.coresets.herding import herding
from synfer_rt.coresets.k_center import k_center

HERDING, K_CENTER, RANDOM = METHODS = ("herding", "k-center", "random")


def choose(
    method: str,
    features: np.ndarray,
    count: int,
    seed: int | tuple[int, ...] = 0,
    on_chosen: Callable[[], None] = lambda: None,
) -> np.ndarray:
    """An order of `count` rows of [n, d] by one of METHODS, int64 [count]; `seed` draws the random.

    `on_chosen` is called after each choice that costs a pass over the rows.
    """
    if method == RANDOM:
        return np.random.default_rng(seed).permutation(len(features))[:count]
    find = {K_CENTER: k_center, HERDING: herding}[method]
    return find(features, count, on_chosen)
