"""The face that counts is found, and its points come to lie where the template has them."""

from __future__ import annotations

import pickle
from collections.abc import Sequence
from typing import Any, cast

import numpy as np
import pytest
from PIL import Image, ImageDraw

from synfer_rt.bundle.face_template import ARCFACE, FaceTemplate
from synfer_rt.faces import similarity
from synfer_rt.faces.alignment import Aligner
from synfer_rt.faces.boxes import Box
from synfer_rt.faces.detection import Face, FaceDetector
from synfer_rt.faces.finding import RULES, NoFace, chosen, faces_in

DOT = (255, 255, 255)
TEMPLATE = FaceTemplate(((0.3, 0.35), (0.7, 0.35), (0.5, 0.55), (0.35, 0.75), (0.65, 0.75)))


class Seer:
    """Sees faces where they are, if they have a size in which YuNet sees them.

    Of a turned face it sees the points up to a quarter of the eyes' distance off, as detectors do;
    the nearer to upright, the less.
    """

    sha256 = "seer"

    def __init__(self, faces: Sequence[np.ndarray]) -> None:
        self.points = faces
        self.calls = 0

    def faces(self, image: Image.Image, matrix: np.ndarray, side: int) -> list[Face]:
        self.calls += 1
        found = []
        for points in self.points:
            seen = similarity.moved(similarity.inverse(matrix), points)
            eyes = seen[1] - seen[0]
            apart = np.hypot(*eyes)
            inside = (seen > 0).all() and (seen < side).all()
            if not (inside and 4 < apart < 120):
                continue
            turn = np.arctan2(eyes[1], eyes[0])
            off = seen + np.array([apart / 4 * np.sin(turn), 0])
            box = np.array([off.min(0) - apart / 2, off.max(0) + apart / 2])
            middle = similarity.moved(matrix, box.mean(0)[None])[0]
            width, height = (box[1] - box[0]) * similarity.scale(matrix)
            corner = middle - (width / 2, height / 2)
            place = Box(float(corner[0]), float(corner[1]), float(width), float(height))
            found.append(Face(place, similarity.moved(matrix, off), 0.9))
        return found


def detector(*faces: np.ndarray) -> FaceDetector:
    return cast(FaceDetector, cast(Any, Seer(faces)))


def face_at(x: float, y: float, side: float, degrees: float = 0) -> np.ndarray:
    """The points of a face that is the template's, turned about its middle."""
    angle = np.deg2rad(degrees)
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    return (np.array(TEMPLATE.points) - 0.5) @ turn.T * side + (x, y)


def picture(size: tuple[int, int], *faces: np.ndarray) -> Image.Image:
    """A dark picture with a dot at each point, as large as a tenth of the eyes' distance."""
    image = Image.new("RGB", size, (10, 20, 30))
    pen = ImageDraw.Draw(image)
    for points in faces:
        radius = np.hypot(*(points[1] - points[0])) / 20
        for x, y in points:
            pen.ellipse((x - radius, y - radius, x + radius, y + radius), DOT)
    return image


def dots(image: Image.Image) -> np.ndarray:
    """Where the five dots are, from the template's places on."""
    pixels = np.asarray(image.convert("L"), float) - 20
    rows, columns = np.mgrid[: image.height, : image.width] + 0.5
    centres = []
    for x, y in TEMPLATE.at((image.height, image.width)):
        near = np.clip(pixels, 0, None) * (np.hypot(columns - x, rows - y) < image.width / 12)
        centres.append([(columns * near).sum() / near.sum(), (rows * near).sum() / near.sum()])
    return np.array(centres)


@pytest.mark.parametrize(
    ("size", "face"),
    [
        ((400, 400), (200, 200, 200, 0)),
        ((400, 300), (150, 180, 120, 30)),
        ((400, 300), (150, 180, 120, -30)),
        ((3000, 2000), (2500, 300, 150, 15)),
        ((200, 200), (100, 100, 190, -20)),
    ],
    ids=["upright", "turned", "turned back", "small", "fills the picture"],
)
def test_points_come_to_lie_on_the_template(size: tuple[int, int], face: tuple[float, ...]):
    points = face_at(*face)
    align = Aligner(detector(points), TEMPLATE, "largest")
    aligned = align(picture(size, points), (96, 96))
    assert aligned.size == (96, 96)
    np.testing.assert_allclose(dots(aligned), TEMPLATE.at((96, 96)), atol=0.5)


def test_a_face_that_is_seen_again_has_its_points_in_the_right_places():
    """A fault of the first look, which grows with the turn, is mended by the second."""
    points = face_at(150, 180, 120, 30)
    seer = detector(points)
    image = picture((400, 300), points)
    (first,) = faces_in(image, seer)
    eyes = np.hypot(*(points[1] - points[0]))
    assert np.abs(first.points - points).max() > 0.1 * eyes
    aligned = Aligner(seer, TEMPLATE, "largest")(image, (96, 96))
    np.testing.assert_allclose(dots(aligned), TEMPLATE.at((96, 96)), atol=0.5)


def test_the_face_in_a_box_counts_whatever_the_rule():
    small, large = face_at(80, 80, 60), face_at(280, 200, 160)
    image, seer = picture((400, 320), small, large), detector(small, large)
    align = Aligner(seer, TEMPLATE, "only")
    by_box = align(image, (64, 64), Box(50, 50, 60, 60))
    alone = Aligner(detector(small), TEMPLATE, "largest")(image, (64, 64))
    assert np.abs(np.asarray(by_box, int) - np.asarray(alone, int)).mean() < 1
    with pytest.raises(NoFace, match="no face in its box"):
        align(image, (64, 64), Box(300, 0, 60, 60))


@pytest.mark.parametrize(("rule", "left"), [("largest", 0), ("centre", 70)])
def test_a_rule_chooses_among_several_faces(rule: str, left: int):
    faces = [
        Face(Box(0, 0, 30, 30), np.zeros((5, 2)), 0.7),
        Face(Box(70, 30, 20, 20), np.zeros((5, 2)), 0.9),
        Face(Box(150, 70, 10, 10), np.zeros((5, 2)), 0.8),
    ]
    assert chosen(faces, rule, (100, 200)).box.left == left
    assert chosen(faces[:1], "only", (100, 200)).box.left == 0
    with pytest.raises(NoFace, match="3 faces, not only one"):
        chosen(faces, "only", (100, 200))


def test_the_face_of_a_picture_is_found_once_if_it_is_remembered():
    points = face_at(150, 180, 120, 30.3)
    seer = Seer([points])
    align = Aligner(cast(FaceDetector, cast(Any, seer)), TEMPLATE, "largest").remembering()
    image, sizes = picture((400, 300), points), ((96, 96), (64, 48))
    wanted = [Aligner(detector(points), TEMPLATE, "largest")(image, size) for size in sizes]
    once = [align(image, size) for size in sizes[:1]]
    looks = seer.calls
    again = [align(image.copy(), size) for size in sizes]
    assert seer.calls == looks > 0
    elsewhere = pickle.loads(pickle.dumps(align.known))
    there = Aligner(detector(), TEMPLATE, "largest", elsewhere)
    for made in (once, again, [there(image, size) for size in sizes]):
        for one, other in zip(made, wanted, strict=False):
            np.testing.assert_array_equal(np.asarray(one), np.asarray(other))


def test_a_remembered_face_is_that_of_its_picture_and_box():
    faces = face_at(100, 100, 100), face_at(300, 300, 100)
    seer = detector(*faces)
    align, plain = (Aligner(seer, TEMPLATE, "centre"), Aligner(seer, TEMPLATE, "centre"))
    align = align.remembering()
    # Of one shape turned on its side: the same bytes.
    grey, side = Image.new("RGB", (400, 420), "grey"), Image.new("RGB", (420, 400), "grey")
    other = picture((400, 420), *faces)
    for image in (grey, side, other, grey):
        for box in (None, Box(40, 40, 120, 120), Box(240, 240, 120, 120)):
            one, wanted = (made(image, (48, 48), box) for made in (align, plain))
            np.testing.assert_array_equal(np.asarray(one), np.asarray(wanted))
    assert align.known is not None and len(align.known) == 9
    assert {len(key) + len(value) for key, value in align.known.items()} == {16 + 80}


@pytest.mark.parametrize("rule", RULES)
def test_a_picture_without_a_face_is_refused(rule: str):
    align = Aligner(detector(), TEMPLATE, rule)
    with pytest.raises(NoFace, match="shows no face"):
        align(picture((90, 60)), (64, 64))


def test_the_settings_name_all_that_decides_an_image():
    assert Aligner(detector(), ARCFACE, "centre").settings() == {
        "face": "centre",
        "detector": "seer",
        "template": [list(point) for point in ARCFACE.points],
    }
