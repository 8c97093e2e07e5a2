"""The state of the page as settings of `sample`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from synfer_rt.bundle import Bundle
from synfer_rt.errors import UserError
from synfer_rt.jobs.sample_settings import make_run
from synfer_rt.studio.photos import Photo
from synfer_rt.studio.state import settings_of

FACE = Photo("ab12", "me.jpg", Path("kept.png"), np.zeros((2, 2, 3), np.uint8), None)


def photo(key: object) -> Photo:
    assert key == FACE.key
    return FACE


def test_fields_are_settings_and_null_is_not_given():
    state = {"label": "happy", "seed": 3, "aus": {"L12": 0.5}, "prompt": None, "guidance": None}
    assert settings_of(state, photo) == {"labels": ["happy"], "seed": 3, "aus": {"L12": 0.5}}


def test_a_photo_is_what_the_run_starts_from():
    settings = settings_of({"label": "sad", "photo": "ab12", "layout_strength": 0.5}, photo)
    assert settings == {"labels": ["sad"], "layout_strength": 0.5, "layout_from": FACE.file}


def test_a_form_of_semantic_guidance_without_a_strength_says_nothing():
    assert settings_of({"label": "sad", "semantic_form": "latent"}, photo) == {"labels": ["sad"]}


def test_the_defaults_are_those_of_sample(bundle: Bundle):
    state = {"label": "fear", "au_scale": bundle.defaults.au_scale, "layout": "bank", "seed": 0}
    run = make_run(bundle, count=1, **settings_of(state, photo))
    assert run == make_run(bundle, count=1, labels=["fear"])


@pytest.mark.parametrize(
    ("state", "sentence"),
    [
        ({"label": "happy", "count": 9}, "no field 'count'"),
        ({"label": "happy", "layout_from": "/etc"}, "no field 'layout_from'"),
        ({"seed": 1}, "`label` must be a class"),
        ({"label": ["happy"]}, "`label` must be a class"),
    ],
)
def test_what_is_no_state_is_refused(state: dict[str, Any], sentence: str):
    with pytest.raises(UserError, match=sentence):
        settings_of(state, photo)


@pytest.mark.parametrize(
    "field",
    [
        {"label": "hapy"},
        {"aus": {"AU12": 1.5}},
        {"aus": ["AU12"]},
        {"aus": {"AU99": 0.5}},
        {"au_scale": "2"},
        {"seed": -1},
        {"seed": 0.5},
        {"prompt": 5},
        {"prompt": "\ud800"},
        {"guidance": float("nan")},
        {"steps": 0},
        {"steps": 2.5},
        {"semantic_guidance": 0.1, "semantic_form": "none"},
        {"layout": "mine"},
        {"layout_strength": 0},
        {"quality": "good"},
        {"quality": "fast", "guidance": 4},
    ],
    ids=str,
)
def test_a_value_that_does_not_fit_is_one_sentence(field: dict[str, Any], bundle: Bundle):
    with pytest.raises(UserError) as caught:
        make_run(bundle, count=1, **settings_of({"label": "happy", **field}, photo))
    assert "\n" not in str(caught.value)
