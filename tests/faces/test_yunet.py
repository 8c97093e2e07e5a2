"""What a file of YuNet's form says becomes faces, by the definition of the form."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from PIL import Image

from synfer_rt.errors import UserError
from synfer_rt.faces import similarity
from synfer_rt.faces.boxes import Box
from synfer_rt.faces.yunet import Yunet
from tests.faces.yunet_form import POINTS, write_red_finder

SAME = similarity.placed((0, 0), 1.0, (0, 0))


@pytest.fixture(scope="module")
def finder(tmp_path_factory: pytest.TempPathFactory) -> Yunet:
    return Yunet(write_red_finder(tmp_path_factory.mktemp("faces") / "red.onnx"))


def with_squares(*corners: tuple[int, int], side: int = 32, size: int = 256) -> Image.Image:
    pixels = np.full((size, size, 3), (0, 90, 160), np.uint8)
    for left, top in corners:
        pixels[top : top + side, left : left + side] = (255, 0, 0)
    return Image.fromarray(pixels)


def test_a_face_lies_where_its_square_says(finder: Yunet):
    (face,) = finder.faces(with_squares((96, 160)), SAME, 256)
    assert face.box == Box(96, 160, 32, 32)
    np.testing.assert_allclose(face.points, np.reshape(POINTS, (5, 2)) * 32 + (96, 160), atol=1e-4)
    assert face.confidence == pytest.approx(1)


def test_a_face_is_told_in_the_pictures_own_pixels(finder: Yunet):
    image = with_squares((192, 320), side=64, size=512)
    (face,) = finder.faces(image, similarity.placed((0, 0), 2.0, (0, 0)), 256)
    assert face.box == Box(192, 320, 64, 64)
    np.testing.assert_allclose(face.points, np.reshape(POINTS, (5, 2)) * 64 + (192, 320), atol=1e-3)


def test_faces_apart_are_each_found_and_paler_ones_later(finder: Yunet):
    image = with_squares((32, 32), (160, 96))
    image.paste((220, 0, 0), (32, 32, 64, 64))
    found = finder.faces(image, SAME, 256)
    assert [face.box.left for face in found] == [160, 32]
    assert [round(face.confidence, 2) for face in found] == [1.0, 0.86]


def test_nothing_is_found_where_nothing_is_sure(finder: Yunet):
    image = with_squares((32, 32))
    image.paste((140, 0, 0), (32, 32, 64, 64))
    assert finder.faces(image, SAME, 256) == []
    assert finder.faces(with_squares(), SAME, 256) == []


def test_a_file_of_a_fixed_size_sees_smaller_parts_too(tmp_path: Path, finder: Yunet):
    fixed = Yunet(write_red_finder(tmp_path / "640.onnx", 640))
    image = with_squares((96, 160))
    (one,), (other,) = finder.faces(image, SAME, 256), fixed.faces(image, SAME, 256)
    assert one.box == other.box


def test_boxes_overlap_by_the_part_that_they_share():
    box = Box(0, 0, 10, 10)
    assert box.overlap(Box(5, 0, 10, 10)) == pytest.approx(50 / 150)
    assert box.overlap(box) == 1
    assert box.overlap(Box(10, 0, 5, 5)) == 0
    assert box.overlap(Box(-5, -5, 20, 20)) == pytest.approx(100 / 400)


def test_what_is_no_detector_is_refused(tmp_path: Path):
    (tmp_path / "text.onnx").write_text("not a network")
    with pytest.raises(UserError, match=r"text\.onnx cannot be loaded"):
        Yunet(tmp_path / "text.onnx")
    with pytest.raises(UserError, match="cannot be read"):
        Yunet(tmp_path / "missing.onnx")
    model = onnx.load(write_red_finder(tmp_path / "red.onnx"))
    del model.graph.output[:6]
    onnx.save(model, tmp_path / "half.onnx")
    with pytest.raises(UserError, match=r"not the outputs of YuNet.*face_detector"):
        Yunet(tmp_path / "half.onnx")
    with pytest.raises(UserError, match="made for images of 320 pixels"):
        Yunet(write_red_finder(tmp_path / "320.onnx", 320))
