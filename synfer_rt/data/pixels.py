"""Pixels of images [B, 3, H, W] in [0, 1]: which are broken, which are grey, what is written."""

from __future__ import annotations

import numpy as np

GREY = (0.299, 0.587, 0.114)
"""Luma of ITU-R BT.601."""

_STEP = 1 / 255
"""Of 8-bit pixels."""


def sound(images: np.ndarray) -> np.ndarray:
    """Which of the images are whole, bool [B]: finite, and not one colour all over.

    Whatever else an image is, a flat one or one with a NaN shows no face and is never accepted.
    Flat is what 8 bits hardly tell from one colour: no channel varies by a step.
    """
    channels = images.reshape(*images.shape[:2], -1)
    with np.errstate(invalid="ignore"):  # of infinities; they are not finite anyway
        varies = np.ptp(channels, axis=2).max(1) >= _STEP
    return np.isfinite(channels).all((1, 2)) & varies


def finite(images: np.ndarray) -> np.ndarray:
    """The images in [0, 1], with black where they are no number."""
    return np.nan_to_num(images, nan=0.0).clip(0, 1)


def in_8_bits(images: np.ndarray) -> np.ndarray:
    """Images in [0, 1] as they are written, uint8 [B, H, W, 3]."""
    return np.rint(images.transpose(0, 2, 3, 1) * 255).astype(np.uint8)


def are_grey(images: np.ndarray) -> np.ndarray:
    """Which of the images have no colour, bool [B].

    Their channels differ by two steps of 8 bits at most: a grey picture that was saved in colour
    may come back so.
    """
    return (np.ptp(images, axis=1) <= 2.5 * _STEP).all((1, 2))


def without_colour(images: np.ndarray) -> np.ndarray:
    """The images with their luma in each channel."""
    luma = np.tensordot(images, np.array(GREY, np.float32), (1, 0))
    return np.repeat(luma[:, None], 3, 1)
