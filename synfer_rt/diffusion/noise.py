"""Random numbers keyed by seed and index: the same sample in any batch, worker or order.

The bits come from Philox4x64-10 (Salmon et al. 2011), a counter-based generator whose raw stream
NumPy guarantees, so `uniform` is equal to the last bit everywhere. `normal` uses NumPy's log1p, cos
and sin, which processors and NumPy releases may round differently in float64. Its float32 numbers
are equal on one machine, and differ between machines by at most one unit in the last place.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

_STREAMS = {"latents": 0, "request": 1, "layout": 2, "posterior": 3, "step": 4}


_AT_ONCE = 1 << 13
"""Normal numbers that are computed together: more do not stay in a core's cache."""

Key = tuple[int, int]
"""A seed and an index, each from 0 to 2^64 - 1."""


def uniform(seed: int, index: int, count: int, stream: str) -> np.ndarray:
    """`count` float64 numbers in [0, 1) for sample `index` of run `seed`; see `uniforms`."""
    return uniforms([(seed, index)], count, stream)[0]


def uniforms(keys: Sequence[Key], count: int, stream: str, step: int = 0) -> np.ndarray:
    """`count` float64 numbers in [0, 1) for each of B keys, [B, count].

    `stream`, a key of _STREAMS, makes the draws for different purposes independent, and `step`,
    from 0, those of different steps.
    """
    counter = np.array([0, 0, step, _STREAMS[stream]], np.uint64)
    generator = np.random.Philox(key=np.zeros(2, np.uint64), counter=counter)
    beginning = generator.state
    bits = np.empty((len(keys), count), np.uint64)
    for row, key in zip(bits, np.array(keys, np.uint64).reshape(-1, 2), strict=True):
        beginning["state"]["key"] = key
        generator.state = beginning  # several times faster than a generator for each key
        row[:] = generator.random_raw(count)
    return (bits >> np.uint64(11)).astype(np.float64) * 2.0**-53


def normal(seed: int, index: int, shape: tuple[int, ...], stream: str = "latents") -> np.ndarray:
    """Standard normal float32 numbers of `shape` for sample `index` of run `seed`."""
    return normals([(seed, index)], shape, stream)[0]


def normals(
    keys: Sequence[Key], shape: tuple[int, ...], stream: str = "latents", step: int = 0
) -> np.ndarray:
    """Standard normal float32 numbers for each of B keys, [B, *shape].

    By the Box-Muller transform of `uniforms`. The numbers of a key are the same in any batch.
    """
    count = math.prod(shape)
    half = (count + 1) // 2
    values = np.empty((len(keys), 2 * half), np.float32)
    at_once = max(1, _AT_ONCE // max(count, 1))
    for first in range(0, len(keys), at_once):
        part = slice(first, first + at_once)
        pairs = uniforms(keys[part], 2 * half, stream, step)
        radius = np.sqrt(-2.0 * np.log1p(-pairs[:, :half]))
        angle = 2.0 * np.pi * pairs[:, half:]
        values[part, :half] = radius * np.cos(angle)
        values[part, half:] = radius * np.sin(angle)
    return values[:, :count].reshape(-1, *shape)
