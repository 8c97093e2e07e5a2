"""A bundle says where its model expects a face, and another is aligned as ArcFace does."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from synfer_rt.bundle import Bundle, open_bundle
from synfer_rt.bundle.face_template import ARCFACE, FaceTemplate, read_template
from synfer_rt.bundle.files import MANIFEST
from synfer_rt.errors import UserError

POINTS = [[0.3, 0.4], [0.7, 0.4], [0.5, 0.6], [0.35, 0.8], [0.65, 0.8]]


def with_template(bundle: Bundle, out: Path, template: Any) -> Path:
    shutil.copytree(bundle.path, out)
    fields = json.loads((out / MANIFEST).read_text()) | {"face_template": template}
    (out / MANIFEST).write_text(json.dumps(fields))
    return out


def test_a_bundle_says_where_faces_lie_and_its_samples_keep_their_hash(
    tiny_bundle: Bundle, tmp_path: Path
):
    found = open_bundle(with_template(tiny_bundle, tmp_path / "b", POINTS))
    height, width = found.image_size
    np.testing.assert_allclose(
        found.face_template.at((height, width)), np.array(POINTS) * (width, height)
    )
    assert found.bundle_hash == tiny_bundle.bundle_hash
    assert found.former_hash == tiny_bundle.former_hash


def test_a_bundle_that_does_not_say_has_arcfaces(tiny_bundle: Bundle):
    assert tiny_bundle.face_template == ARCFACE
    # Published for crops of 112 x 112 pixels.
    expected = [
        (38.2946, 51.6963),
        (73.5318, 51.5014),
        (56.0252, 71.7366),
        (41.5493, 92.3655),
        (70.7299, 92.2041),
    ]
    np.testing.assert_allclose(ARCFACE.at((112, 112)), expected, atol=1e-3)


def test_the_template_keeps_its_proportions_in_the_middle_of_another_shape():
    template = FaceTemplate(((0.0, 0.0), (1.0, 1.0)), (1, 1))
    np.testing.assert_allclose(template.at((64, 128)), [[32, 0], [96, 64]])
    np.testing.assert_allclose(template.at((128, 64)), [[0, 32], [64, 96]])
    tall = FaceTemplate(((0.0, 0.0), (1.0, 1.0)), (128, 64))
    np.testing.assert_allclose(tall.at((256, 128)), [[0, 0], [128, 256]])


@pytest.mark.parametrize(
    "template",
    [
        POINTS[:4],
        [*POINTS, [0.5, 0.5]],
        [*POINTS[:4], [0.5]],
        [*POINTS[:4], [0.5, "0.5"]],
        [*POINTS[:4], [30, 40]],
        [*POINTS[:4], [True, 0]],
        [*POINTS[:4], POINTS[0]],
        {"left_eye": [0, 0]},
        "arcface",
        None,
    ],
)
def test_anything_but_five_points_is_refused(template: Any, tiny_bundle: Bundle, tmp_path: Path):
    with pytest.raises(ValueError, match="face_template"):
        read_template(template, (1, 1))
    with pytest.raises(UserError, match="face_template"):
        open_bundle(with_template(tiny_bundle, tmp_path / "b", template))
