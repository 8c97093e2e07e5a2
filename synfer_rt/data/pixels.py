"""Pixels of images [B, 3, H, W] in [0, 1]: valid ones, grey ones, conversion to 8 bits."""

from __future__ import annotations

import numpy as np

GREY = (0.299, 0.587, 0.114)
"""Luma of ITU-R BT.601."""

LEVEL = 1 / 255
"""The smallest difference of 8-bit pixels."""


def sound(images: np.ndarray) -> np.ndarray:
    """Which of the images are finite and not of one colour, bool [B].

    An image with a NaN, or of one colour, shows no face, so it is never accepted. It is of one
    colour if no channel varies by a step of 8 bits.
    """
    channels = images.reshape(*images.shape[:2], -1)
    with np.errstate(
        invalid="ignore", over="ignore"
    ):  # infinity minus infinity; such images are not finite
        varies = np.ptp(channels, axis=2).max(1) >= LEVEL
    return np.isfinite(channels).all((1, 2)) & varies


def finite(images: np.ndarray) -> np.ndarray:
    """The images clipped to [0, 1], with NaN as black."""
    return np.nan_to_num(images, nan=0.0).clip(0, 1)


def in_8_bits(images: np.ndarray) -> np.ndarray:
    """Images in [0, 1] as 8-bit pixels, uint8 [B, H, W, 3]."""
    return np.rint(images.transpose(0, 2, 3, 1) * 255).astype(np.uint8)


def are_grey(images: np.ndarray) -> np.ndarray:
    """Which of the images have no colour, bool [B].

    Their channels differ by at most two steps of 8 bits, as those of a grey image may that was
    saved in colour.
    """
    return (np.ptp(images, axis=1) <= 2.5 * LEVEL).all((1, 2))


def without_colour(images: np.ndarray) -> np.ndarray:
    """The images in grey: their luma in each channel."""
    luma = np.tensordot(images, np.array(GREY, np.float32), (1, 0))
    return np.repeat(luma[:, None], 3, 1)
