"""Similarity transforms of the plane: scale, rotation and translation.

They are matrices float64 [2, 3] for points (x, y, 1) in pixels. A pixel's centre is half a pixel
from its edges, so (0, 0) is the upper left corner of an image.
"""

from __future__ import annotations

import numpy as np


def fitted(points: np.ndarray, target: np.ndarray) -> np.ndarray:
    """The similarity that takes `points` nearest to `target`, both [N, 2].

    It has the least sum of squared distances, and no reflection (Umeyama 1991, IEEE TPAMI 13:4, in
    the plane, where points are complex numbers and the transform is `a * z + b`). Raises ValueError
    for points on one spot.
    """
    source, aim = points @ (1, 1j), target @ (1, 1j)
    centred = source - source.mean()
    spread = (np.abs(centred) ** 2).sum()
    if not spread > 0:
        raise ValueError("the points are all in one place")
    factor = (centred.conj() * (aim - aim.mean())).sum() / spread
    return _matrix(factor, aim.mean() - factor * source.mean())


def inverse(matrix: np.ndarray) -> np.ndarray:
    """The similarity back."""
    factor, shift = _numbers(matrix)
    return _matrix(1 / factor, -shift / factor)


def scale(matrix: np.ndarray) -> float:
    """How many times longer than before a line becomes."""
    return float(np.hypot(matrix[0, 0], matrix[1, 0]))


def moved(matrix: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Where points [N, 2] go."""
    return points @ matrix[:, :2].T + matrix[:, 2]


def placed(centre: tuple[float, float], factor: float, at: tuple[float, float]) -> np.ndarray:
    """The similarity without rotation that takes the point `at` to `centre`, times `factor`."""
    return np.array(
        [
            [factor, 0.0, centre[0] - factor * at[0]],
            [0.0, factor, centre[1] - factor * at[1]],
        ]
    )


def _matrix(factor: complex, shift: complex) -> np.ndarray:
    return np.array(
        [[factor.real, -factor.imag, shift.real], [factor.imag, factor.real, shift.imag]]
    )


def _numbers(matrix: np.ndarray) -> tuple[complex, complex]:
    return complex(matrix[0, 0], matrix[1, 0]), complex(matrix[0, 2], matrix[1, 2])
