"""Wrinkle height maps in frontal rest-pose coordinates, as slopes ready for bump mapping."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
from scipy.ndimage import gaussian_filter

X_RANGE, Y_RANGE = (-0.95, 0.95), (5.95, 8.35)
WIDTH, HEIGHT = 192, 240

_X = np.linspace(*X_RANGE, WIDTH)[None]
_Y = np.linspace(*Y_RANGE, HEIGHT)[:, None]
_FLAT = np.zeros((HEIGHT, WIDTH))


def _groove(points: list[tuple[float, float]], width: float, depth: float) -> np.ndarray:
    """A soft groove along a polyline in (|x|, y), tapered at its ends, [HEIGHT, WIDTH]."""
    ax = np.abs(_X)
    line = np.array(points)
    steps = np.linalg.norm(np.diff(line, axis=0), axis=1)
    start = np.concatenate([[0], np.cumsum(steps)])
    distance = np.full((HEIGHT, WIDTH), 9.0)
    along = np.zeros((HEIGHT, WIDTH))
    for i, (a, b) in enumerate(pairwise(line)):
        e = b - a
        t = np.clip(((ax - a[0]) * e[0] + (_Y - a[1]) * e[1]) / (e @ e), 0, 1)
        d = np.hypot(ax - a[0] - t * e[0], _Y - a[1] - t * e[1])
        nearer = d < distance
        distance = np.where(nearer, d, distance)
        along = np.where(nearer, (start[i] + t * steps[i]) / start[-1], along)
    taper = np.clip(np.minimum(along, 1 - along) * 5, 0, 1)
    return -depth * np.exp(-((distance / width) ** 2)) * taper


def _height_maps() -> dict[str, np.ndarray]:
    ax = np.abs(_X)
    noise = gaussian_filter(np.random.default_rng(1).normal(size=(HEIGHT, WIDTH)), 3.0)
    noise *= 0.28 / noise.std()
    forehead = sum(
        _groove([(-0.02, y), (0.16, y), (0.34, y + 0.012), (0.5, y - 0.01)], 0.016, 0.55 * depth)
        for y, depth in ((7.64, 1.0), (7.74, 0.9), (7.85, 0.7))
    )
    # An outer brow that rises alone folds the skin above it into arcs that follow it.
    arcs = sum(
        (
            _groove(
                [(0.20, 7.62 + o), (0.36, 7.70 + o), (0.50, 7.71 + o), (0.62, 7.64 + o)], 0.018, d
            )
            for o, d in ((0.0, 0.7), (0.09, 0.6), (0.18, 0.4))
        ),
        _FLAT,
    )
    nasolabial = [(0.17, 6.97), (0.25, 6.88), (0.33, 6.76), (0.385, 6.63), (0.39, 6.52)]
    chin_pad = np.exp(-((ax / 0.15) ** 2) - ((_Y - 6.27) / 0.07) ** 2)
    return {
        "nasolabial": _groove(nasolabial, 0.032, 0.85),
        "glabella": _groove([(0.055, 7.38), (0.05, 7.47), (0.06, 7.58)], 0.023, 1.0)
        + _groove([(0.11, 7.42), (0.10, 7.52)], 0.015, 0.4),
        "forehead_outer": 0.4 * forehead * np.clip((ax - 0.12) * 5, 0.15, 1) + arcs,
        "forehead_inner": forehead * np.clip((0.34 - ax) * 6, 0, 1),
        "crow_feet": sum(
            (
                _groove(
                    [(0.55, 7.25 + o), (0.64, 7.25 + 2.2 * o), (0.73, 7.25 + 3.2 * o)], 0.013, 0.6
                )
                for o in (-0.035, 0.0, 0.035)
            ),
            _FLAT,
        ),
        "cheek_furrow": _groove(
            [(0.16, 7.13), (0.27, 7.05), (0.40, 7.04), (0.54, 7.10)], 0.03, 0.9
        ),
        "lower_lid": _groove([(0.20, 7.16), (0.33, 7.135), (0.46, 7.17)], 0.016, 0.6),
        "nose_bridge": sum(
            (
                _groove([(-0.01, y), (0.07, y + 0.02), (0.13, y + 0.05)], 0.014, 0.8)
                for y in (7.16, 7.22, 7.28)
            ),
            _FLAT,
        )
        + _groove([(0.10, 7.12), (0.16, 7.0), (0.19, 6.92)], 0.02, 0.6),
        "chin": _groove([(-0.02, 6.385), (0.1, 6.375), (0.17, 6.34)], 0.022, 0.8)
        + 0.9 * chin_pad * noise,
        "mentolabial": _groove([(-0.02, 6.405), (0.12, 6.41), (0.24, 6.45)], 0.03, 0.9),
        "lip_side": _groove([(0.385, 6.74), (0.43, 6.64), (0.435, 6.54), (0.40, 6.42)], 0.028, 0.9)
        + _groove([(0.32, 6.40), (0.25, 6.33), (0.14, 6.30)], 0.03, 0.5),
        "lip_rim": _groove([(-0.02, 6.73), (0.12, 6.725), (0.24, 6.66)], 0.022, 0.7)
        + _groove([(-0.02, 6.46), (0.12, 6.465), (0.24, 6.52)], 0.022, 0.7),
        "dimple": _groove([(0.36, 6.72), (0.40, 6.62), (0.38, 6.52)], 0.026, 1.1),
        "mouth_corner": _groove([(0.345, 6.58), (0.375, 6.50), (0.375, 6.43)], 0.026, 0.5),
        "lid_fold": _groove(
            [(0.19, 7.335), (0.27, 7.375), (0.37, 7.38), (0.47, 7.345)], 0.013, 0.6
        ),
    }


class WrinkleMaps:
    """All wrinkles, split down the middle so that each side has its own gains."""

    def __init__(self) -> None:
        maps = _height_maps()
        self.names = tuple(maps)
        stacked = []
        for height in maps.values():
            # Central differences over two texels: the slope the shader subtracts from normals.
            rows = np.pad(height, ((1, 1), (0, 0)), mode="edge")
            columns = np.pad(height, ((0, 0), (1, 1)), mode="edge")
            stacked.append(
                np.stack([columns[:, 2:] - columns[:, :-2], rows[2:] - rows[:-2], height], -1)
            )
        basis = np.array(stacked, np.float32)
        half = WIDTH // 2
        # x < 0, the first half of the columns, is the subject's right.
        self._left = np.ascontiguousarray(basis[:, :, half:].reshape(len(basis), -1))
        self._right = np.ascontiguousarray(basis[:, :, :half].reshape(len(basis), -1))

    def combine(self, left: dict[str, float], right: dict[str, float]) -> np.ndarray:
        """Sum of the maps, float32 [HEIGHT, WIDTH, 3]: slope in x, slope in y, height."""
        halves = []
        for basis, gains in ((self._right, right), (self._left, left)):
            index = [self.names.index(name) for name in gains]
            amount = np.fromiter(gains.values(), np.float32)
            halves.append((amount @ basis[index]).reshape(HEIGHT, WIDTH // 2, 3))
        return np.ascontiguousarray(np.concatenate(halves, 1))
