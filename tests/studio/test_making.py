"""One image at a time from engines that stay loaded."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from synfer_rt.api import Model
from synfer_rt.backends.loaded_engines import LoadedEngines
from synfer_rt.bundle import Bundle
from synfer_rt.jobs.sample_settings import SampleSettings
from synfer_rt.judging.annotators import AU_READER
from synfer_rt.studio.answers import image_answer
from synfer_rt.studio.making import Maker, OutOfDate
from tests.studio.conftest import BACKEND
from tests.studio.test_photos import picture


@pytest.fixture(scope="module")
def maker(engines: LoadedEngines) -> Maker:
    return Maker(engines)


def test_an_image_is_that_of_sample_with_its_vote(
    maker: Maker, bundle: Bundle, engines: LoadedEngines
):
    model = Model(bundle, BACKEND, 1)
    model._engines = engines
    settings: Any = {"labels": ["happy"], "aus": {"AU12": 0.9}, "seed": 8}
    made = maker.make(settings)
    (sample,) = model.sample(count=1, **settings)
    assert np.array_equal(made.sample.image, sample.image)
    assert made.sample.probabilities == sample.probabilities
    answer = image_answer(made)
    said = {one["annotator"]: one["share"] for one in answer["opinions"]}
    assert [*said] == ["dense", "residual", "feranno"] and max(said.values()) <= 1
    assert answer["given"] == {"AU12": 0.9} and answer["aus"]["L12"] == 0.9


def test_the_reader_looks_at_the_image_that_is_shown(maker: Maker, engines: LoadedEngines):
    made = maker.make({"labels": ["surprise"], "aus": {"AU26": 1.0}})
    image = (made.sample.image.transpose(2, 0, 1)[None] / 255).astype(np.float32)
    expected = engines[AU_READER].run({"images": image})["aus"][0]
    assert made.read is not None and [*made.read] == [*maker.bundle.au_names]
    assert np.allclose([*made.read.values()], expected, atol=1e-6)


def test_a_face_stays_while_units_move(maker: Maker):
    """Identity is locked by the seed: between two smiles less changes than between two seeds."""

    def face(seed: int, smile: float) -> np.ndarray:
        made = maker.make({"labels": ["happy"], "seed": seed, "aus": {"AU12": smile}})
        return made.sample.image.astype(float)

    one = face(1, 0.2)
    assert 0 < np.abs(one - face(1, 1.0)).mean() < np.abs(one - face(2, 0.2)).mean() / 2


def test_a_photo_is_inverted_once_while_units_move(
    maker: Maker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    (file := tmp_path / "me.png").write_bytes(picture((64, 64)))
    calls: list[int] = []
    encode = maker._sampler.encode
    monkeypatch.setattr(maker._sampler, "encode", lambda x: calls.append(len(x)) or encode(x))
    photo: SampleSettings = {"labels": ["happy"], "layout_from": file, "steps": 2}
    for smile in (0.0, 1.0):
        maker.make({**photo, "aus": {"AU12": smile}})
    assert calls == [1]
    maker.make({**photo, "layout_strength": 0.5})
    assert calls == [1, 1]  # the way back has other steps


def test_what_is_out_of_date_is_not_made_to_its_end(maker: Maker):
    asked: list[int] = []

    def after_two_stages() -> bool:
        asked.append(1)
        return len(asked) > 2

    with pytest.raises(OutOfDate):
        maker.make({"labels": ["happy"]}, after_two_stages)
    assert len(asked) == 3
    maker.make({"labels": ["happy"]})  # nothing of it stays


def test_notes_say_what_a_user_should_know(maker: Maker):
    made = maker.make({"labels": ["happy"], "guidance": 4.0, "prompt": "a photo of a zebra"})
    notes = image_answer(made)["notes"]
    assert any("quality best" in note for note in notes)
    assert any("zebra" in note for note in notes)
