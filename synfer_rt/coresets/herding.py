"""The greedy choice of rows whose mean is that of all rows."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from synfer_rt.coresets.blocks import blocks, mean_of


def herding(
    features: np.ndarray, count: int, on_chosen: Callable[[], None] = lambda: None
) -> np.ndarray:
    """An order of `count` rows of [n, d] in which each brings the mean nearest to that of all.

    Int64 [count], `count` from 1 to n. The k-th row x is the one, of those not chosen, with the
    least |k * mean - (sum of those before) - x|. Among rows of one length it is the one with the
    largest product with w = k * mean - (sum of those before), which is the update of herding
    (Welling, ICML 2009; as a choice of samples Chen, Welling and Smola, arXiv 1203.3472). The first
    is the row that is nearest to the mean. Of equal rows the first counts. `on_chosen` is called
    after each choice.

    A choice costs one pass over the rows: n * d * `count` products in all.
    """
    mean = mean_of(features)
    halves = np.empty(len(features))  # half the squared lengths; infinite once a row is chosen
    for part, block in blocks(features):
        halves[part] = np.square(block - mean).sum(1) / 2
    order, missing = np.empty(count, np.int64), np.zeros_like(mean)
    for place in range(count):
        scores = np.empty(len(features))
        for part, block in blocks(features):
            # Not by BLAS, whose sums depend on how many threads it has.
            apart = block - mean.astype(np.float32)
            scores[part] = np.einsum("ij,j->i", apart, missing.astype(np.float32))
        chosen = int((scores - halves).argmax())
        order[place] = chosen
        halves[chosen] = np.inf
        missing -= features[chosen] - mean
        on_chosen()
    return order
