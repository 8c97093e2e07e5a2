"""What of an image is broken, and what is grey."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from synfer_rt.data import pixels

SHAPE = (3, 16, 12)


def noisy() -> np.ndarray:
    return np.random.default_rng(0).random(SHAPE, np.float32)


def spoilt(value: float) -> np.ndarray:
    image = noisy()
    image[1, 2, 3] = value
    return image


def plain(*colour: float) -> np.ndarray:
    return np.broadcast_to(np.array(colour, np.float32).reshape(3, 1, 1), SHAPE)


BROKEN = {
    "black": plain(0, 0, 0),
    "grey": plain(0.5, 0.5, 0.5),
    "one colour": plain(0.9, 0.4, 0.1),
    "less than a step of 8 bits": 0.5 + 0.003 * noisy(),
    "a NaN": spoilt(np.nan),
    "an infinity": spoilt(np.inf),
    "a negative infinity": spoilt(-np.inf),
    "all NaN": plain(np.nan, np.nan, np.nan),
}
SOUND = {
    "noise": noisy(),
    "faint": 0.5 + 0.02 * noisy(),
    "one channel alone varies": np.stack([noisy()[0], *plain(0, 0, 0)[:2]]),
    "one pixel beyond 1": spoilt(1.5),
}


@pytest.mark.filterwarnings("error")
def test_broken_is_flat_or_not_finite() -> None:
    images = np.stack([*BROKEN.values(), *SOUND.values()])
    assert pixels.sound(images).tolist() == [False] * len(BROKEN) + [True] * len(SOUND)


def test_a_grey_picture_is_grey_however_it_was_saved() -> None:
    grey = np.random.default_rng(1).integers(0, 256, (1, *SHAPE[1:]))
    nearly = grey / 255 + np.array([0, 1, 2]).reshape(3, 1, 1) / 255
    one_pixel = np.repeat(grey / 255, 3, 0)
    one_pixel[0, 4, 4] += 3 / 255
    images = np.stack([np.repeat(grey / 255, 3, 0), nearly, one_pixel, noisy()]).astype(np.float32)
    assert pixels.are_grey(images).tolist() == [True, True, False, False]


def test_without_colour_is_pillows_luma() -> None:
    picture = np.random.default_rng(2).integers(0, 256, (16, 12, 3), np.uint8)
    wanted = np.asarray(Image.fromarray(picture).convert("L"), int)
    found = pixels.without_colour(picture.transpose(2, 0, 1)[None] / np.float32(255))
    shown = pixels.in_8_bits(found)[0].astype(int)
    assert found.dtype == np.float32 and pixels.are_grey(found).all()
    assert np.abs(shown - wanted[..., None]).max() <= 1


def test_what_is_no_number_is_black() -> None:
    images = np.stack([spoilt(np.nan), spoilt(np.inf), spoilt(-1.0)])
    shown = pixels.in_8_bits(pixels.finite(images))
    assert shown[:, 2, 3, 1].tolist() == [0, 255, 0]
