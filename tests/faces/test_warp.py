"""Pictures are cropped, turned and scaled as Pillow does each, and nothing aliases."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from synfer_rt.faces.warp import warped


def picture(height: int, width: int, smooth: int = 8) -> Image.Image:
    """Coloured blotches of about `smooth` pixels."""
    draw = np.random.default_rng(0)
    small = draw.integers(0, 256, (-(-height // smooth), -(-width // smooth), 3), np.uint8)
    return Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC)


def upright(factor: float, left: float, top: float) -> np.ndarray:
    return np.array([[factor, 0, left], [0, factor, top]])


def apart(one: Image.Image, other: Image.Image) -> np.ndarray:
    return np.abs(np.asarray(one, float) - np.asarray(other, float))


def test_a_part_in_its_own_size_is_unchanged():
    image = picture(60, 50)
    part = warped(image, upright(1, 7, 11), (32, 24))
    np.testing.assert_array_equal(np.asarray(part), np.asarray(image.crop((7, 11, 31, 43))))


def test_a_quarter_turn_is_exact():
    image = picture(40, 40)
    turned = warped(image, np.array([[0, -1, 40], [1, 0, 0]]), (40, 40))
    np.testing.assert_array_equal(np.asarray(turned), np.rot90(np.asarray(image)))


@pytest.mark.parametrize("factor", [0.5, 1.3, 2.0, 3.7, 9.1, 31.0])
def test_scaling_agrees_with_pillows_antialiased_resize(factor: float):
    image = picture(800, 700, smooth=max(4, round(2 * factor)))
    size, left, top = (20, 16), 30.25, 41.5
    box = (left, top, left + 16 * factor, top + 20 * factor)
    if factor > 20:
        box = (left, top, left + 16 * factor, top + 20 * factor)
    expected = image.resize((16, 20), Image.Resampling.BICUBIC, box=box)
    difference = apart(warped(image, upright(factor, left, top), size), expected)
    assert difference.mean() < 0.02 * 255


@pytest.mark.parametrize("factor", [3.1, 6.7, 40.3])
@pytest.mark.parametrize("degrees", [0, 30])
def test_a_fine_pattern_becomes_grey_when_it_shrinks(factor: float, degrees: float):
    rows, columns = np.mgrid[:900, :900]
    board = np.repeat(((rows + columns) % 2 * 255)[..., None], 3, 2).astype(np.uint8)
    angle = np.deg2rad(degrees)
    turn = factor * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    matrix = np.column_stack([turn, 450 - turn @ (8, 8)])
    small = np.asarray(warped(Image.fromarray(board), matrix, (16, 16)), float)
    assert np.abs(small - 127.5).max() < 0.06 * 255
    # Sampling one point for a pixel, as Pillow's transform alone does, shows a pattern of its own.
    naive = Image.fromarray(board).transform(
        (16, 16), Image.Transform.AFFINE, matrix.ravel().tolist(), Image.Resampling.BICUBIC
    )
    assert np.asarray(naive, float).std() > 2 * small.std()


def test_the_edge_continues_outside_the_picture():
    image = Image.fromarray(np.full((20, 20, 3), (10, 200, 30), np.uint8))
    for left, top in ((-15, -15), (12, 5), (-50, 30)):
        outside = np.asarray(warped(image, upright(1, left, top), (24, 24)))
        assert (outside == (10, 200, 30)).all()


def test_the_result_does_not_depend_on_what_is_elsewhere():
    image = picture(300, 400)
    matrix = np.array([[2.0, -0.5, 60], [0.5, 2.0, 70]])
    whole = warped(image, matrix, (32, 32))
    part = warped(image.crop((20, 30, 300, 300)), matrix - [[0, 0, 20], [0, 0, 30]], (32, 32))
    np.testing.assert_array_equal(np.asarray(whole), np.asarray(part))
