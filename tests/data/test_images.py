"""Images from elsewhere are read upright, cropped and whole, or refused in a sentence."""

from __future__ import annotations

import errno
import io
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from synfer_rt.data import images
from synfer_rt.data.images import find_images, read_image
from synfer_rt.errors import UserError

SIZE = (32, 32)


def noise(height: int, width: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)


def encoded(array: np.ndarray, kind: str = "PNG", mode: str | None = None, **options) -> bytes:
    file = io.BytesIO()
    image = Image.fromarray(array)
    (image.convert(mode) if mode else image).save(file, kind, **options)
    return file.getvalue()


def test_an_image_of_the_right_size_is_unchanged() -> None:
    pixels = noise(32, 32)
    found = read_image(encoded(pixels), SIZE)
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, pixels.transpose(2, 0, 1).astype(np.float32) / 255)


def test_a_file_is_read_like_its_content(tmp_path: Path) -> None:
    content = encoded(noise(40, 50), "JPEG")
    (tmp_path / "face").write_bytes(content)
    np.testing.assert_array_equal(read_image(tmp_path / "face", SIZE), read_image(content, SIZE))


def test_a_wide_picture_is_cropped_at_its_centre() -> None:
    pixels = np.zeros((32, 96, 3), np.uint8)
    pixels[:, 32:64] = noise(32, 32)
    found = read_image(encoded(pixels), SIZE)
    np.testing.assert_array_equal(found, read_image(encoded(pixels[:, 32:64]), SIZE))


def test_shrinking_averages() -> None:
    pixels = np.zeros((128, 128, 3), np.uint8)
    pixels[::2] = 255
    assert np.abs(read_image(encoded(pixels), SIZE) - 0.5).max() < 0.05


def test_a_frame_that_is_not_square_is_filled() -> None:
    assert read_image(encoded(noise(50, 20)), (32, 48)).shape == (3, 32, 48)


def test_a_turned_photograph_is_read_upright() -> None:
    pixels = noise(32, 32)
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was held so that the top is at the right
    sideways = encoded(np.rot90(pixels), exif=exif)
    np.testing.assert_array_equal(read_image(sideways, SIZE), read_image(encoded(pixels), SIZE))


@pytest.mark.parametrize("mode", ["L", "P", "CMYK", "1", "LA"])
def test_other_colour_modes_become_rgb(mode: str) -> None:
    kind = "TIFF" if mode == "CMYK" else "PNG"
    assert read_image(encoded(noise(32, 32), kind, mode), SIZE).shape == (3, *SIZE)


def test_sixteen_bit_greys_keep_their_range() -> None:
    ramp = np.linspace(0, 65535, 32 * 32).reshape(32, 32).astype(np.uint16)
    found = read_image(encoded(ramp), SIZE)
    np.testing.assert_allclose(found[1], ramp / 65535, atol=1 / 255)


@pytest.mark.parametrize("kind", ["PGM", "TIFF of 32 bits"])
def test_sixteen_bit_greys_keep_their_range_in_more_bits(kind: str) -> None:
    ramp = np.linspace(0, 65535, 32 * 32).reshape(32, 32)
    content = b"P5 32 32 65535\n" + ramp.astype(">u2").tobytes()
    if kind != "PGM":
        content = encoded(ramp.astype(np.int32), "TIFF")
    np.testing.assert_allclose(read_image(content, SIZE)[1], ramp / 65535, atol=1 / 255)


def test_eight_bit_greys_in_more_bits_keep_their_range() -> None:
    ramp = np.linspace(0, 255, 32 * 32).reshape(32, 32).astype(np.int32)
    found = read_image(encoded(ramp, "TIFF"), SIZE)
    np.testing.assert_allclose(found[1], ramp / 255, atol=1e-6)


@pytest.mark.parametrize(
    ("pixels", "reason"),
    [
        (np.linspace(0, 1, 32 * 32, dtype=np.float32), "floating point"),
        (np.linspace(0, 1 << 20, 32 * 32, dtype=np.int32), "more than 16 bits"),
        (np.linspace(-9, 9, 32 * 32, dtype=np.int32), "more than 16 bits"),
    ],
)
def test_pixels_of_no_known_range_are_refused(pixels: np.ndarray, reason: str) -> None:
    with pytest.raises(UserError, match=rf"{reason}\); save it"):
        read_image(encoded(pixels.reshape(32, 32), "TIFF"), SIZE)


def test_transparent_parts_are_white() -> None:
    pixels = np.zeros((32, 32, 4), np.uint8)
    assert read_image(encoded(pixels), SIZE).min() == 1


@pytest.mark.parametrize(
    "content",
    [b"", b"not an image", encoded(noise(64, 64))[:900], encoded(noise(64, 64), "JPEG")[:900]],
    ids=["empty", "text", "cut PNG", "cut JPEG"],
)
def test_what_is_no_whole_image_is_refused_by_name(content: bytes, tmp_path: Path) -> None:
    file = tmp_path / "face.png"
    file.write_bytes(content)
    with pytest.raises(UserError, match=r"face\.png cannot be read .*leave it out"):
        read_image(file, SIZE)


def test_what_is_no_photograph_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("PIL.EpsImagePlugin.Ghostscript", lambda *_: pytest.fail("it ran"))
    with pytest.raises(UserError, match="its format is unknown"):
        read_image(encoded(noise(32, 32), "EPS"), SIZE)


@pytest.mark.parametrize("kind", ["BMP", "GIF", "JPEG", "JPEG2000", "PNG", "PPM", "TIFF", "WEBP"])
def test_photographs_are_read_in_every_usual_format(kind: str) -> None:
    assert read_image(encoded(noise(32, 32), kind), SIZE).shape == (3, *SIZE)


def test_a_photograph_of_several_pictures_is_its_first() -> None:
    pixels = noise(32, 32)
    several = encoded(pixels, "MPO", save_all=True, append_images=[Image.new("RGB", (32, 32))])
    np.testing.assert_array_equal(
        read_image(several, SIZE), read_image(encoded(pixels, "JPEG"), SIZE)
    )


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"gone\.png .*No such file"):
        read_image(tmp_path / "gone.png", SIZE)


@pytest.mark.parametrize("limit", [Image.MAX_IMAGE_PIXELS, 500])
def test_a_decompression_bomb_is_refused_undecoded(
    limit: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(images, "MAX_PIXELS", 1000)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", limit)
    cut = encoded(noise(64, 64))[:200]  # decoding it would fail in another way
    with pytest.raises(UserError, match=r"The image is too large .*at most 1000 pixels"):
        read_image(cut, SIZE)


def test_every_file_but_hidden_ones_is_found_in_order(tmp_path: Path) -> None:
    (tmp_path / "b").mkdir()
    (tmp_path / ".cache").mkdir()
    for name in ("z.png", "b/a.JPG", "notes.txt", ".hidden.png", ".cache/x.png"):
        (tmp_path / name).write_bytes(b"")
    assert find_images(tmp_path) == [tmp_path / n for n in ("b/a.JPG", "notes.txt", "z.png")]


def test_links_are_followed_and_each_folder_is_found_once(tmp_path: Path) -> None:
    for name in ("all/happy", "all/sad", "elsewhere"):
        (tmp_path / name).mkdir(parents=True)
    for name in ("all/happy/a.png", "elsewhere/b.png"):
        (tmp_path / name).write_bytes(b"")
    links = {
        "again": "happy",  # a folder of the list: its own name counts
        "happy/around": "../..",  # leads to everything, and back
        "happy/dead.png": "gone.png",
        "happy/loop": "loop",
        "happy/one.png": "../../elsewhere/b.png",
        "fear": "../elsewhere",
        "sad/same": "../../elsewhere",
    }
    for name, target in links.items():
        (tmp_path / "all" / name).symlink_to(target)
    os.mkfifo(tmp_path / "all" / "pipe.png")
    found = [
        file.relative_to(tmp_path / "all").as_posix() for file in find_images(tmp_path / "all")
    ]
    assert found == sorted((links.keys() | {"happy/a.png", "fear/b.png"}) - {"fear"})


def test_a_folder_that_cannot_be_listed_stands_in_the_list(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "locked").mkdir()
    (tmp_path / "a.png").touch()
    scandir = os.scandir

    def locked(path: str) -> object:  # permissions would not keep out root
        if Path(path).name == "locked":
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), path)
        return scandir(path)

    monkeypatch.setattr(os, "scandir", locked)
    assert find_images(tmp_path) == [tmp_path / "a.png", tmp_path / "locked"]
    with pytest.raises(UserError, match=r"locked cannot be listed .*correct its permissions"):
        find_images(tmp_path / "locked")


def test_a_path_that_may_not_be_looked_at_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def locked(path: Path, **_: object) -> os.stat_result:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))

    monkeypatch.setattr(Path, "stat", locked)
    with pytest.raises(UserError, match=r"a\.png cannot be accessed .*permissions of its folder"):
        find_images(tmp_path / "a.png")


def test_a_file_is_its_own_list(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"")
    assert find_images(str(tmp_path / "a.png")) == [tmp_path / "a.png"]


def test_nowhere_and_nothing_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no file or directory"):
        find_images(tmp_path / "gone")
    with pytest.raises(UserError, match="has no files"):
        find_images(tmp_path)
