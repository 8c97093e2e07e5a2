"""A tileable noise texture for skin and hair, which the shaders read instead of computing noise."""

from __future__ import annotations

import numpy as np
from scipy.ndimage import gaussian_filter

SIZE = 512
PERIOD = 2.0
"""Extent of one tile in decimetres of the rest pose."""
_CELL = (0.017, 0.008, 0.16, 0.07)
"""Feature size of each channel in decimetres: fine, pores, blotches, spots."""


def texture(seed: int = 0) -> np.ndarray:
    """uint8 [SIZE, SIZE, 4]; every channel has mean 1/2 and a standard deviation of about 0.17."""
    rng = np.random.default_rng(seed)
    channels = []
    for cell in _CELL:
        sigma = 0.35 * cell / PERIOD * SIZE
        noise = gaussian_filter(rng.normal(size=(SIZE, SIZE)), sigma, mode="wrap")
        channels.append(0.5 + 0.17 * noise / noise.std())
    return np.rint(np.clip(np.stack(channels, -1), 0, 1) * 255).astype(np.uint8)
