"""Rendered faces are found and aligned at any size, in pictures of several, and where turned."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("moderngl", reason="the reference faces need moderngl")
pytest.importorskip("scipy", reason="the reference faces need scipy")

from reference.experiments import alignment
from reference.faces import scene
from reference.faces.landmarks import Landmarks, sample_points
from reference.faces.render import Renderer
from synfer_rt.bundle import open_bundle
from synfer_rt.faces import weights
from synfer_rt.faces.alignment import Aligner
from tests.reference.test_faces import person as person


@pytest.fixture(scope="module")
def marks() -> Landmarks:
    return Landmarks()


def test_points_lie_where_the_scene_puts_a_face(marks: Landmarks, person):
    left, right, nose, *mouth = marks.points(person, {}, scene.Pose())
    assert (left + right)[1] / 2 == pytest.approx(scene.EYE_LINE, abs=0.01)
    assert right[0] - left[0] == pytest.approx(scene.EYE_DISTANCE, rel=0.05)
    assert nose[0] == pytest.approx(0.5, abs=0.02) and left[1] < nose[1] < mouth[0][1]
    turned = marks.points(person, {}, scene.Pose(roll=0.3))
    slope = np.subtract(*turned[[1, 0]])
    # A positive roll tips the crown to the image's left, so the eye on the right goes up.
    assert np.arctan2(-slope[1], slope[0]) == pytest.approx(0.3, abs=0.02)


def test_the_shipped_template_is_where_renders_have_their_points():
    found = sample_points(np.random.default_rng(3), 24).mean(0)
    np.testing.assert_allclose(found, open_bundle().face_template.points, atol=0.03)


@pytest.fixture(scope="module")
def renderer():
    try:
        made = Renderer()
    except Exception as error:
        pytest.skip(f"no EGL: {error}")
    yield made
    made.close()


@pytest.mark.slow
@pytest.mark.skipif(weights.installed() is None, reason="needs the extra align")
@pytest.mark.parametrize("case", alignment.CASES, ids=lambda case: case.name)
def test_faces_are_found_and_aligned(case: alignment.Case, renderer, marks: Landmarks):
    bundle = open_bundle()
    aligner = Aligner(weights.detector(None), bundle.face_template, "largest")
    pictures = alignment.pictures_of(case, renderer, marks, seed=5, count=6)
    found = [alignment.read(picture, aligner, bundle.image_size) for picture in pictures]
    assert [reading.faces for reading in found].count(case.faces) >= 5
    if case.faces:
        assert np.median([reading.off or 1 for reading in found]) < 0.03
        assert np.median([reading.second or 1 for reading in found]) < 0.15
