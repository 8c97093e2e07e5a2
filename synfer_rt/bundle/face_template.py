"""Where a model expects the five points of an aligned face in its images."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, cast

import numpy as np

from synfer_rt.bundle.sizes import Size
from synfer_rt.ranges import is_real

POINTS = (
    "the eye on the image's left",
    "the eye on its right",
    "the tip of the nose",
    "the mouth's corner on the left",
    "the mouth's corner on the right",
)
"""The five points in their order."""
_FURTHEST = 1.0
"""How far outside the frame a point may be, in widths or heights of it."""


@dataclass(frozen=True)
class FaceTemplate:
    """Five points as shares of a frame's width and height, from its upper left corner.

    `frame` is the (height, width) of that frame; only their ratio counts.
    """

    points: tuple[tuple[float, float], ...]
    frame: Size = (1, 1)

    def at(self, size: Size) -> np.ndarray:
        """The points (x, y) in pixels of an image of `size` (H, W), float64 [5, 2].

        The frame keeps its proportions: it is as large as fits, in the middle of the image.
        """
        (height, width), (wanted_height, wanted_width) = self.frame, size
        scale = min(wanted_height / height, wanted_width / width)
        inner = np.array([width, height]) * scale
        return np.array(self.points) * inner + (np.array([wanted_width, wanted_height]) - inner) / 2


ARCFACE = FaceTemplate(
    (
        (0.34192, 0.46157),
        (0.65653, 0.45983),
        (0.50022, 0.64051),
        (0.37097, 0.82469),
        (0.63151, 0.82325),
    )
)
"""The template of a model that names none: that of ArcFace's crops of 112 x 112 pixels, to which
recognition networks and most aligned sets of faces are cropped (Deng et al., arXiv 1801.07698)."""


def read_template(value: object, frame: Size) -> FaceTemplate:
    """The template of a JSON value: five pairs of numbers, the shares of points in their order.

    Raises ValueError for anything else, and for points on one spot.
    """
    pairs = cast("list[Any]", value) if isinstance(value, list) else []
    if len(pairs) != len(POINTS) or not all(map(_is_point, pairs)):
        raise ValueError(
            f"face_template {value!r} is not five points [x, y] in shares of the image's width and "
            f"height, for {', '.join(POINTS)}"
        )
    points = tuple((float(x), float(y)) for x, y in pairs)
    if len({*points}) < len(POINTS):
        raise ValueError(f"face_template {value!r} has two points in one place")
    return FaceTemplate(points, frame)


def _is_point(pair: object) -> bool:
    numbers = cast("list[object]", pair) if isinstance(pair, list) else []
    return len(numbers) == 2 and all(is_real(n, -_FURTHEST, 1 + _FURTHEST) for n in numbers)
