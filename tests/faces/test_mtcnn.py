"""MTCNN's boxes by their definitions, and its networks where the extra `align` is installed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import synfer_rt
from synfer_rt.errors import UserError
from synfer_rt.faces import similarity, weights
from synfer_rt.faces.finding import found_in
from synfer_rt.faces.mtcnn import FILES, Mtcnn, _apart, _moved, _square

SAME = similarity.placed((0, 0), 1.0, (0, 0))
installed = pytest.mark.skipif(weights.installed() is None, reason="needs the extra align")


def test_of_boxes_that_overlap_the_most_probable_stays():
    boxes = np.array([[0, 0, 10, 10], [1, 0, 11, 10], [20, 0, 30, 10], [0, 0, 30, 30.0]])
    assert _apart(boxes, np.array([0.7, 0.9, 0.8, 0.6]), 0.5).tolist() == [1, 2, 3]
    assert _apart(boxes, np.array([0.9, 0.9, 0.9, 0.9]), 0.9).tolist() == [0, 1, 2, 3]
    assert _apart(boxes[:0], np.empty(0), 0.5).tolist() == []


def test_corners_move_by_shares_of_a_box():
    moved = _moved(np.array([[10, 20, 30, 60.0]]), np.array([[0.1, -0.1, 0.5, 0.25]]))
    np.testing.assert_allclose(moved, [[12, 16, 40, 70]])


def test_a_box_becomes_a_square_about_its_middle():
    np.testing.assert_allclose(_square(np.array([[10, 20, 30, 60.0]])), [[0, 20, 40, 60]])


def test_a_folder_without_the_networks_is_refused(tmp_path: Path):
    (tmp_path / FILES[0]).write_text("not a network")
    with pytest.raises(UserError, match=r"pnet\.onnx cannot be loaded"):
        Mtcnn(tmp_path)


@installed
def test_the_installed_networks_are_those_that_are_known():
    found = weights.installed()
    assert found is not None and found.sha256 == weights.SHA256


@installed
@pytest.mark.parametrize("side", [32, 256, 640])
def test_nothing_is_found_where_nothing_is(side: int):
    found = weights.detector(None)
    for pixels in (
        np.zeros((side, side, 3), np.uint8),
        np.random.default_rng(0).integers(0, 256, (side, side, 3), np.uint8),
    ):
        assert found.faces(Image.fromarray(pixels), SAME, side) == []


@installed
def test_a_turned_face_is_found_where_it_is():
    """A sample of the shipped model, three times as large and turned by 20 degrees in a picture."""
    model = synfer_rt.load(backend="onnxruntime-cpu", threads=1)
    (sample,) = model.sample(count=1, labels=["neutral"])
    turn, middle = np.deg2rad(20), np.array([230, 140])
    matrix = 3 * np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
    back = np.linalg.inv(matrix)  # from the picture to the sample, whose middle is at (32, 32)
    given = np.column_stack([back, 32 - back @ middle]).ravel().tolist()
    picture = Image.fromarray(sample.image).transform(
        (400, 300), Image.Transform.AFFINE, given, Image.Resampling.BICUBIC, fillcolor=(90, 90, 90)
    )
    points = found_in(picture, weights.detector(None), "only").points
    expected = (model.bundle.face_template.at((64, 64)) - 32) @ matrix.T + middle
    eyes = np.linalg.norm(expected[1] - expected[0])
    assert np.linalg.norm(points - expected, axis=1).mean() < 0.3 * eyes
