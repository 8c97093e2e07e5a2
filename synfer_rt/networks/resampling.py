"""Pillow's resampling as a matrix for each of the two axes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from PIL import Image


def matrix(old: int, new: int, resampling: Image.Resampling) -> np.ndarray:
    """The matrix of Pillow's resampling of `old` pixels to `new`, float32 [new, old]."""
    from PIL import Image

    steps = Image.fromarray(np.eye(old, dtype=np.float32))
    return np.array(steps.resize((old, new), resampling))
