"""A state as command, as Python and as a plan: each makes the very image again."""

from __future__ import annotations

import shlex
import tomllib
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest

from synfer_rt.backends.loaded_engines import LoadedEngines
from synfer_rt.bundle import Bundle
from synfer_rt.faces import weights
from synfer_rt.faces.alignment import Aligner
from synfer_rt.faces.detection import FaceDetector
from synfer_rt.jobs.sample_settings import make_run
from synfer_rt.studio.copying import copies, plan
from synfer_rt.studio.making import Maker
from synfer_rt.studio.photos import Photo, Photos
from synfer_rt.studio.state import settings_of
from tests.studio.again import Again, as_file
from tests.studio.conftest import BACKEND
from tests.studio.test_photos import picture

STATES: dict[str, dict[str, Any]] = {
    "as it opens": {"label": "happy", "seed": 0},
    "sides": {"label": "contempt", "seed": 5, "aus": {"L12": 0.3, "R14": 0.75}, "au_scale": 1.4},
    "no unit": {"label": "fear", "seed": 2**62, "aus": {"AU1": 0}, "prompt": "a {b} \"c\" 'd' é\\"},
    "another way": {
        **{
            "label": "anger",
            "seed": 1,
            "negative_prompt": "dim light",
            "guidance": 3.0,
            "steps": 3,
        },
        **{"semantic_guidance": 0.05, "semantic_form": "latent", "layout": "none"},
    },
}
OF_A_PHOTO: dict[str, Any] = {"label": "surprise", "seed": 3, "aus": {"AU26": 0.6}, "steps": 2}


@pytest.fixture(scope="module")
def maker(engines: LoadedEngines) -> Maker:
    return Maker(engines)


def no_photo(key: object) -> Photo:
    raise AssertionError(key)


def of(texts: dict[str, str], again: Again) -> list[bytes]:
    """The images that the three texts make."""
    return [
        again.python(texts["python"]),
        again.command(texts["command"]),
        again.plan(texts["plan"], texts["plan_command"]),
    ]


@pytest.mark.parametrize("state", STATES.values(), ids=STATES)
def test_each_text_makes_the_very_image_again(state: dict[str, Any], maker: Maker, again: Again):
    settings = settings_of(state, no_photo)
    made = maker.make(settings)
    texts = copies(settings, made.run, BACKEND, None)
    assert of(texts, again) == [as_file(made.sample.image)] * 3


def test_each_text_starts_from_the_photo(maker: Maker, again: Again, bundle: Bundle):
    with Photos(bundle) as photos:
        (again.folder / "my face.png").write_bytes(content := picture())
        photo = photos.add(content, "my face.png")
        settings = settings_of(OF_A_PHOTO | {"photo": photo.key}, photos)
        made = maker.make(settings)
        texts = copies(settings, made.run, BACKEND, photo)
    assert "my face.png" in texts["remark"] and str(photo.file) not in str(texts)
    assert of(texts, again) == [as_file(made.sample.image)] * 3


def test_an_aligned_photo_is_aligned_again(maker: Maker, bundle: Bundle, tmp_path: Path):
    aligner = Aligner(cast(FaceDetector, Detector()), bundle.face_template, "largest")
    (file := tmp_path / "kept.png").write_bytes(picture((64, 64)))
    photo = Photo("ab", "me.jpg", file, np.zeros((64, 64, 3), np.uint8), aligner)
    settings = settings_of(OF_A_PHOTO | {"photo": "ab"}, lambda key: photo)
    texts = copies(settings, maker.run_of(settings), BACKEND, photo)
    assert "--align --face largest" in texts["command"]
    assert "align=True,\n    face='largest'" in texts["python"]
    assert tomllib.loads(texts["plan"])["align"] is True


class Detector:
    sha256 = weights.SHA256


def test_another_bundle_is_named(maker: Maker, tiny_bundle: Bundle):
    run = make_run(tiny_bundle, count=1, labels=["happy"])
    texts = copies({"labels": ["happy"]}, run, BACKEND, None)
    named = str(tiny_bundle.path)
    assert f"--bundle {shlex.quote(named)} " in texts["command"]
    assert f"load({named!r}, " in texts["python"]
    assert f"--bundle {shlex.quote(named)} " in texts["plan_command"]


def test_names_that_toml_does_not_take_bare_are_quoted():
    text = plan({"prompt": "del \x7f\n", "aus": {"left smile": 0.5}}, "a b")
    assert tomllib.loads(text) == {
        "count": 1, "prompt": "del \x7f\n", "aus": {"a b": {"left smile": 0.5}},
    }  # fmt: skip
