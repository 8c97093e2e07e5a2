"""Random numbers keyed by seed and index: the same sample in any batch, worker or order.

The bits come from Philox4x64-10 (Salmon et al. 2011), a counter-based generator whose raw stream
NumPy guarantees, so `uniform` is equal to the last bit everywhere. `normal` uses NumPy's log1p, cos
and sin, which processors and NumPy releases may round differently in float64. Its float32 numbers
are equal on one machine, and differ between machines by at most one unit in the last place.
"""

from __future__ import annotations

import math

import numpy as np

_STREAMS = {"latents": 0, "request": 1, "layout": 2, "posterior": 3}


def uniform(seed: int, index: int, count: int, stream: str) -> np.ndarray:
    """`count` float64 numbers in [0, 1) for sample `index` of run `seed`.

    `stream`, a key of _STREAMS, makes the draws for different purposes independent.
    """
    key = np.array([seed, index], np.uint64)
    counter = np.array([0, 0, 0, _STREAMS[stream]], np.uint64)
    bits = np.random.Philox(key=key, counter=counter).random_raw(count)
    return (bits >> np.uint64(11)).astype(np.float64) * 2.0**-53


def normal(seed: int, index: int, shape: tuple[int, ...], stream: str = "latents") -> np.ndarray:
    """Standard normal float32 numbers of `shape`, by the Box-Muller transform."""
    count = math.prod(shape)
    pairs = uniform(seed, index, 2 * ((count + 1) // 2), stream).reshape(2, -1)
    radius = np.sqrt(-2.0 * np.log1p(-pairs[0]))
    angle = 2.0 * np.pi * pairs[1]
    values = np.concatenate([radius * np.cos(angle), radius * np.sin(angle)])
    return values[:count].astype(np.float32).reshape(shape)
