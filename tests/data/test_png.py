"""PNG files: any reader gets the pixels back, and files are about as small as Pillow's."""

from __future__ import annotations

import io
import zlib

import numpy as np
import pytest
from PIL import Image

from synfer_rt.backends.loaded_engines import LoadedEngines
from synfer_rt.bundle import open_bundle
from synfer_rt.data import png
from synfer_rt.data.image_format import PNG
from synfer_rt.data.pixels import in_8_bits
from synfer_rt.data.writers.image_check import problem


def decoded(file: bytes) -> np.ndarray:
    with Image.open(io.BytesIO(file)) as image:
        assert image.mode == "RGB"
        return np.asarray(image)


def random(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, shape, np.uint8)


def smooth(size: int, seed: int) -> np.ndarray:
    """A picture whose neighbouring pixels are alike, as a photograph's are, with some noise."""
    draw = np.random.default_rng(seed)
    coarse = Image.fromarray(random(5, 5, 3, seed=seed)).resize(
        (size, size), Image.Resampling.BICUBIC
    )
    return (np.asarray(coarse) + draw.normal(0, 2, (size, size, 3))).clip(0, 255).astype(np.uint8)


@pytest.mark.parametrize("size", [(1, 1), (1, 7), (7, 1), (2, 3), (64, 64), (37, 53)])
@pytest.mark.parametrize("count", [1, 3])
def test_pixels_come_back(size: tuple[int, int], count: int) -> None:
    pictures = random(count, *size, 3)
    for picture, file in zip(pictures, png.encode(pictures), strict=True):
        np.testing.assert_array_equal(decoded(file), picture)
        assert problem(file, PNG) is None


@pytest.mark.parametrize("lost", [1, 4, 11, 12, 100])
def test_a_file_without_its_end_is_cut_short(lost: int) -> None:
    """The last chunk has 12 bytes, which hold no pixels."""
    (file,) = png.encode([random(8, 8, 3)])
    assert problem(file[:-lost], PNG) == "it is cut short or not a PNG"


@pytest.mark.parametrize("value", [0, 1, 128, 255])
def test_pictures_of_one_colour_come_back(value: int) -> None:
    picture = np.full((300, 300, 3), value, np.uint8)
    (file,) = png.encode([picture])
    np.testing.assert_array_equal(decoded(file), picture)
    assert len(file) < 2500


def test_a_file_does_not_depend_on_its_batch() -> None:
    pictures = [smooth(64, seed) for seed in range(50)]  # more than are filtered at once
    together = png.encode(pictures)
    assert together == [png.encode([picture])[0] for picture in pictures]


def test_layouts_in_memory_do_not_matter() -> None:
    planes = random(3, 20, 30)
    (file,) = png.encode([planes.transpose(1, 2, 0)])
    np.testing.assert_array_equal(decoded(file), planes.transpose(1, 2, 0))


def paeth(a: int, b: int, c: int) -> int:
    """PNG specification, 9.4."""
    p = a + b - c
    pa, pb, pc = abs(p - a), abs(p - b), abs(p - c)
    if pa <= pb and pa <= pc:
        return a
    return b if pb <= pc else c


def test_every_byte_is_filtered_by_paeths_predictor() -> None:
    picture = np.concatenate([random(40, 9, 3), random(40, 9, 3, seed=1) // 100])  # many are equal
    height, width, _ = picture.shape
    (file,) = png.encode([picture])
    begin = file.index(b"IDAT") + 4
    rows = np.frombuffer(zlib.decompress(file[begin:-16]), np.uint8).reshape(height, -1)
    assert (rows[:, 0] == 4).all()
    x = np.zeros((height + 1, 3 * width + 3), int)
    x[1:, 3:] = picture.reshape(height, -1)
    expected = [
        [
            (x[i, j] - paeth(x[i, j - 3], x[i - 1, j], x[i - 1, j - 3])) % 256
            for j in range(3, x.shape[1])
        ]
        for i in range(1, height + 1)
    ]
    np.testing.assert_array_equal(rows[:, 1:], expected)


def pillows(picture: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(picture).save(file, "PNG")
    return file.getvalue()


@pytest.mark.parametrize("size", [64, 512])
def test_files_are_at_most_a_tenth_larger_than_pillows(size: int) -> None:
    pictures = [smooth(size, seed) for seed in range(1024 // size)]
    assert sum(map(len, png.encode(pictures))) < 1.1 * sum(map(len, map(pillows, pictures)))


def test_decoded_faces_are_at_most_a_tenth_larger_than_pillows() -> None:
    bundle = open_bundle()
    engines = LoadedEngines(bundle, "onnxruntime-cpu", threads=1)
    decoded = engines.run_in_pieces("decoder", "latents", bundle.layouts.latents[:8])
    faces = in_8_bits(decoded["images"])
    assert sum(map(len, png.encode(faces))) < 1.1 * sum(map(len, map(pillows, faces)))


def test_no_pictures_are_no_files() -> None:
    assert png.encode([]) == []


@pytest.mark.parametrize(
    "pictures",
    [
        [random(4, 4, 4)],
        [random(4, 4, 3).astype(float)],
        [random(4, 4, 3), random(1, 4, 3)],
        [random(0, 4, 3)],
    ],
)
def test_other_pictures_are_refused(pictures: list[np.ndarray]) -> None:
    with pytest.raises(ValueError, match="uint8"):
        png.encode(pictures)
