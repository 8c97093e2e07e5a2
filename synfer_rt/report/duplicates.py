"""The nearest other image of each image, exactly, among all pairs.

The distance is the root mean square difference of 16 x 16 grey pixels, in 8-bit levels. Its square
times 256 is a whole number of at most 256 * 255^2, which is less than 2^24. So are all products and
partial sums, hence float32 computes them exactly, in whatever order a BLAS library adds them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

SIDE = 16
FEATURES = SIDE * SIDE
_BLOCK = 2048
"""Images that are compared with as many others at once: 16 MB a product, whatever their number."""
_FAR = np.float32(2**25)


@dataclass(frozen=True)
class Nearest:
    """The nearest other image of each image.

    `image` int64 [N] is its number, -1 if there is none; `distance` float64 [N], in levels, is then
    NaN. Of several at one distance it is the first.
    """

    image: np.ndarray
    distance: np.ndarray

    def pairs(self, most: int) -> list[tuple[int, int, float]]:
        """The pairs of images that are each other's nearest, or one of which is, nearest first."""
        found: dict[tuple[int, int], float] = {}
        for one in np.argsort(self.distance, kind="stable"):
            other = int(self.image[one])
            if other < 0 or len(found) == most:
                break
            found.setdefault(
                (min(int(one), other), max(int(one), other)), float(self.distance[one])
            )
        return [(*pair, distance) for pair, distance in found.items()]


def nearest(
    features: np.ndarray,
    present: np.ndarray,
    on_progress: Callable[[int], None] = lambda images: None,
) -> Nearest:
    """The nearest other image of each, of features uint8 [N, 256]; `present` bool [N] has them.

    Memory is that of the features and of one product of two blocks. `on_progress` is given the
    number of images of which all pairs are compared.
    """
    rows = np.flatnonzero(present)
    some = features[rows]
    least = np.full(len(some), _FAR)
    of = np.full(len(some), -1, np.int64)
    starts = range(0, len(some), _BLOCK)
    for first in starts:
        here = some[first : first + _BLOCK].astype(np.float32)
        here_norms = np.einsum("ij,ij->i", here, here)
        for second in starts[first // _BLOCK :]:
            there = here if second == first else some[second : second + _BLOCK].astype(np.float32)
            squares = _squares(here, here_norms, there)
            if second == first:
                np.fill_diagonal(squares, _FAR)
            _keep_least(least, of, first, second, squares)
            if second != first:
                _keep_least(least, of, second, first, squares.T)
        on_progress(min(first + _BLOCK, len(some)))
    found = of >= 0
    image, distance = np.full(len(features), -1, np.int64), np.full(len(features), np.nan)
    image[rows[found]] = rows[of[found]]
    distance[rows[found]] = np.sqrt(least[found].astype(np.float64) / FEATURES)
    return Nearest(image, distance)


def _squares(here: np.ndarray, norms: np.ndarray, there: np.ndarray) -> np.ndarray:
    """The squared distances of all pairs [here, there]; each step is exact."""
    products = here @ there.T
    squares = norms[:, None] - products
    np.subtract(np.einsum("ij,ij->i", there, there)[None], products, out=products)
    squares += products
    return squares


def _keep_least(
    least: np.ndarray, of: np.ndarray, first: int, second: int, squares: np.ndarray
) -> None:
    """Note for the images from `first` on which from `second` on is nearer than those before."""
    best = squares.argmin(1)
    value = squares[np.arange(len(squares)), best]
    part = slice(first, first + len(squares))
    nearer = value < least[part]
    least[part][nearer] = value[nearer]
    of[part][nearer] = second + best[nearer]
