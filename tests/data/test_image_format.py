"""Image files in each format: what is decoded is what was encoded, as far as the format allows."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image, features

from synfer_rt.data import png
from synfer_rt.data.image_format import PNG, SUFFIXES, ImageFormat, image_format, of_settings
from synfer_rt.errors import UserError

LOSSY = [image_format(name) for name in ("jpeg", "webp")]


def smooth(height: int = 48, width: int = 40, seed: int = 0) -> np.ndarray:
    """Uint8 [H, W, 3] without edges, which lossy formats keep well."""
    coarse = np.random.default_rng(seed).integers(40, 220, (4, 4, 3), np.uint8)
    return np.asarray(Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC))


def decoded(file: bytes) -> np.ndarray:
    with Image.open(io.BytesIO(file)) as image:
        assert image.mode == "RGB"
        return np.asarray(image).astype(float)


@pytest.mark.parametrize("format", LOSSY, ids=lambda format: format.name)
def test_pictures_come_back_nearly_as_they_were(format: ImageFormat):
    pictures = [smooth(seed=seed) for seed in range(3)]
    for picture, file in zip(pictures, format.encode(pictures), strict=True):
        with Image.open(io.BytesIO(file)) as image:
            assert image.format == format.name.upper()
        assert np.abs(decoded(file) - picture).mean() < 2


def test_png_is_as_it_is_without_a_format():
    pictures = np.stack([smooth(seed=seed) for seed in range(3)])
    assert PNG.encode(pictures) == png.encode(pictures)
    assert PNG.settings == {} and of_settings({}) == PNG and PNG.encoder is None


@pytest.mark.parametrize("name", ["jpeg", "webp"])
def test_a_lower_quality_is_smaller_and_less_like_the_picture(name: str):
    picture = smooth(96, 96) ^ np.random.default_rng(1).integers(0, 16, (96, 96, 3), np.uint8)
    files = [image_format(name, quality).encode([picture])[0] for quality in (50, 95)]
    losses = [np.square(decoded(file) - picture).mean() for file in files]
    assert len(files[0]) < len(files[1]) and losses[0] > losses[1]


@pytest.mark.parametrize("format", LOSSY, ids=lambda format: format.name)
def test_an_array_of_pictures_is_encoded_as_each_alone(format: ImageFormat):
    pictures = np.stack([smooth(seed=seed) for seed in range(3)])
    assert format.encode(pictures) == [format.encode([picture])[0] for picture in pictures]


@pytest.mark.parametrize("format", LOSSY, ids=lambda format: format.name)
def test_the_settings_of_a_run_say_format_and_quality(format: ImageFormat):
    assert format.settings == {"image_format": format.name, "image_quality": 95}
    assert of_settings(format.settings) == format
    other = image_format(format.name, np.int64(70))
    assert of_settings(other.settings).quality == 70


def test_the_encoder_has_the_releases_of_its_libraries():
    jpeg, webp = (format.encoder for format in LOSSY)
    assert jpeg == f"Pillow {Image.__version__}, libjpeg-turbo {features.version('libjpeg_turbo')}"
    assert webp == f"Pillow {Image.__version__}, libwebp {features.version('webp')}"


def test_a_pillow_without_the_library_is_told(monkeypatch):
    monkeypatch.setattr(features, "check", lambda feature: feature != "webp")
    assert image_format("jpeg").encoder
    with pytest.raises(UserError, match="build of Pillow cannot write webp; install one from PyPI"):
        _ = image_format("webp").encoder


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (("jpg",), "`image_format` must be one of png, jpeg, webp, got 'jpg'; the nearest is jpeg"),
        ((3,), "`image_format` must be one of png, jpeg, webp, got 3"),
        (("png", 90), "`image_quality` is of jpeg and webp, PNG keeps every pixel; leave it out"),
        (("jpeg", 0), "`image_quality` must be from 1 to 100, got 0"),
        (("webp", 101), "`image_quality` must be from 1 to 100, got 101"),
        (("jpeg", 9.5), "`image_quality` must be a whole number from 1 to 100, got 9.5"),
    ],
)
def test_what_is_no_format_or_quality_is_refused(given, said):
    with pytest.raises(UserError) as error:
        image_format(*given)
    assert str(error.value).startswith(said)


def test_pictures_that_a_format_cannot_hold_are_refused():
    wide = np.zeros((1, 16_384, 3), np.uint8)
    with pytest.raises(UserError, match=r"16384 x 1 pixels cannot be written as webp, .* 16383"):
        image_format("webp").encode([wide])
    assert image_format("webp").encode([wide[:, 1:]])
    with pytest.raises(ValueError, match="must be uint8"):
        image_format("jpeg").encode([np.zeros((4, 4), np.uint8)])


def test_suffixes_are_those_that_readers_know():
    assert SUFFIXES == {"png": "png", "jpeg": "jpg", "webp": "webp"}
