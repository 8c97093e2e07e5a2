"""Pictures seen through a similarity: rotated, scaled and cropped, without aliasing."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from synfer_rt.faces import similarity

if TYPE_CHECKING:
    from PIL.Image import Image

_FINEST = 8
"""Up to this many pixels of the picture for one of the result are sampled one by one."""
_SUPPORT = 3
"""Pixels beside a region that the bicubic filter reads, with one to spare."""


def warped(image: Image, matrix: np.ndarray, size: tuple[int, int]) -> Image:
    """The part of an RGB picture that `matrix` [2, 3] takes from the result's pixels to its own.

    `size` is the (H, W) of the result. Outside the picture its edge is continued. Where the result
    is smaller than the part, as many points are sampled as the part has pixels, and Pillow's
    bicubic filter makes one pixel of those that it covers, so that nothing aliases.
    """
    from PIL import Image as pillow

    shrinking = similarity.scale(matrix)
    if shrinking > _FINEST:
        whole = int(shrinking // (_FINEST / 2))
        image = image.reduce(whole)
        matrix = matrix / whole
        shrinking /= whole
    points = max(1, math.ceil(shrinking - 1e-6))
    height, width = size
    fine = np.column_stack([matrix[:, :2] / points, matrix[:, 2]])
    region, corner = _region(image, fine, (height * points, width * points))
    # Where the result's upper left corner lies in the region.
    fine[:, 2] -= corner
    sampled = region.transform(
        (width * points, height * points),
        pillow.Transform.AFFINE,
        fine.ravel().tolist(),
        pillow.Resampling.BICUBIC,
    )
    return sampled if points == 1 else sampled.resize((width, height), pillow.Resampling.BICUBIC)


def _region(image: Image, matrix: np.ndarray, size: tuple[int, int]) -> tuple[Image, np.ndarray]:
    """What the samples of a result of `size` read, and the (x, y) of its corner in the picture.

    Parts outside the picture continue its edge.
    """
    from PIL import Image as pillow

    height, width = size
    corners = similarity.moved(matrix, np.array([[0, 0], [width, 0], [0, height], [width, height]]))
    least = np.floor(corners.min(0)).astype(int) - _SUPPORT
    most = np.ceil(corners.max(0)).astype(int) + _SUPPORT
    # At least one pixel of the picture, whose edge then continues as far as it has to.
    first = np.clip(least, 0, np.array(image.size) - 1)
    last = np.clip(most, 1, image.size)
    before, after = np.maximum(first - least, 0), np.maximum(most - last, 0)
    part = image.crop((*first.tolist(), *last.tolist()))
    if before.any() or after.any():
        beside = [(before[1], after[1]), (before[0], after[0]), (0, 0)]
        part = pillow.fromarray(np.pad(np.asarray(part), beside, "edge"))
    return part, first - before
