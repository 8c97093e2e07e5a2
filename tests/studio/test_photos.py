"""Uploads: checked like every image, kept as the model sees them, removed at the end."""

from __future__ import annotations

import io
from collections.abc import Iterator

import numpy as np
import pytest
from PIL import Image

from synfer_rt.bundle import Bundle
from synfer_rt.data.images import read_image
from synfer_rt.errors import UserError
from synfer_rt.studio import photos as uploads
from synfer_rt.studio.photos import Photos, plain_name


def picture(size: tuple[int, int] = (90, 120), format: str = "PNG") -> bytes:
    """The content of an image file, width by height."""
    drawn = np.random.default_rng(size[0]).integers(0, 256, (size[1], size[0], 3), np.uint8)
    Image.fromarray(drawn).save(file := io.BytesIO(), format)
    return file.getvalue()


@pytest.fixture
def photos(bundle: Bundle) -> Iterator[Photos]:
    with Photos(bundle) as kept:
        yield kept


@pytest.mark.parametrize("format", ["PNG", "JPEG", "WEBP"])
def test_what_is_kept_has_the_pixels_that_sample_would_start_from(
    format: str, photos: Photos, bundle: Bundle
):
    content = picture(format=format)
    photo = photos.add(content, "me.img")
    expected = read_image(content, bundle.image_size)
    assert np.array_equal(read_image(photo.file, bundle.image_size), expected)
    assert np.array_equal(photo.pixels, np.rint(expected.transpose(1, 2, 0) * 255))
    assert photos(photo.key) is photo


def test_the_last_uploads_are_kept(photos: Photos, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(uploads, "_KEPT", 2)
    first, second = (photos.add(picture((64, n)), "a.png") for n in (64, 65))
    photos(first.key)  # it is used, so the other goes
    third = photos.add(picture((64, 66)), "a.png")
    assert photos(first.key) is first and photos(third.key) is third
    assert not second.file.exists()
    with pytest.raises(UserError, match="choose its file again"):
        photos(second.key)


def test_nothing_is_left_at_the_end(bundle: Bundle):
    with Photos(bundle) as kept:
        folder = kept.add(picture(), "me.png").file.parent
        assert folder.is_dir()
    assert not folder.exists()


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"", "format is unknown"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "format is unknown"),
        (picture()[:-200], "cannot be read"),
    ],
)
def test_what_is_no_image_is_one_sentence(content: bytes, sentence: str, photos: Photos):
    with pytest.raises(UserError, match=sentence):
        photos.add(content, "me.png")


def test_a_file_that_is_too_large_is_not_opened(photos: Photos, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(uploads, "MOST_BYTES", 1_000_000)
    with pytest.raises(UserError, match="at most 1 MB"):
        photos.add(bytes(1_000_001), "me.png")


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ("me.jpg", "me.jpg"),
        ("/etc/passwd", "passwd"),
        (r"C:\photos\me one.jpg", "me one.jpg"),
        ("--out.png", "./--out.png"),
        ("a\nb\x00.png", "ab.png"),
        ("..", "photo"),
        ("", "photo"),
    ],
)
def test_a_name_is_that_of_a_file(given: str, kept: str):
    assert plain_name(given) == kept


def test_an_aligned_upload_has_the_pixels_of_the_aligner(
    photos: Photos, bundle: Bundle, monkeypatch: pytest.MonkeyPatch
):
    def corner(image: Image.Image, size: tuple[int, int]) -> Image.Image:
        return image.crop((0, 0, size[1], size[0]))

    monkeypatch.setattr(uploads, "aligner_for", lambda bundle, align, *_: corner if align else None)
    aligned, centred = (photos.add(picture(), "me.png", align=align) for align in (True, False))
    assert aligned.aligner is corner and centred.aligner is None
    height, width = bundle.image_size
    pixels = np.asarray(Image.open(io.BytesIO(picture())))
    assert np.array_equal(aligned.pixels, pixels[:height, :width])
    assert photos(aligned.key) is aligned and photos(centred.key) is centred
