"""Samples in memory."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any, get_type_hints

import numpy as np
import pytest
from PIL import Image

from synfer_rt.api import Model
from synfer_rt.bundle import Bundle
from synfer_rt.data.writers import read
from synfer_rt.jobs.sample_settings import SampleSettings, make_run


def test_samples_are_labelled_images(model: Model) -> None:
    samples = model.sample(labels=["happy", "sad"], count=3, seed=4, steps=2)
    assert [sample.request.label for sample in samples] == ["happy", "sad", "happy"]
    for sample in samples:
        assert sample.image.dtype == np.uint8 and sample.image.shape == (32, 32, 3)
        assert sample.label in model.bundle.classes
        assert sum(sample.probabilities.values()) == pytest.approx(1, abs=1e-3)


def test_action_units_are_those_that_are_given(model: Model) -> None:
    (sample,) = model.sample(labels=["happy"], aus={"AU12": 0.8}, count=1, steps=1)
    assert sample.request.aus == {"AU12": 0.8}


def test_samples_in_memory_are_those_that_are_written(model: Model, tmp_path: Path) -> None:
    settings: SampleSettings = {"labels": ["happy", "fear"], "seed": 7, "steps": 2}
    samples = model.sample(count=5, batch=2, **settings)
    written = model.write(tmp_path / "out", count=5, format="parquet", **settings)
    assert written.count == written.summary.images == 5
    for sample, (record, png) in zip(samples, read(Path(written.path)), strict=True):
        assert np.array_equal(sample.image, decoded(png))
        assert (sample.label, sample.accepted) == (record["label"], record["accepted"])


def decoded(png: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(png)))


def test_accepted_samples_are_counted_in_memory_too(model: Model) -> None:
    samples = model.sample(labels=["happy"], count=3, count_accepted=True, steps=1, threshold=0.0)
    assert [sample.accepted for sample in samples].count(True) >= 3


def test_none_is_the_default_of_each_setting(model: Model) -> None:
    nothing: Any = dict.fromkeys(get_type_hints(SampleSettings))
    (sample,) = model.sample(count=1, **nothing)
    (default,) = model.sample(count=1)
    assert sample.request == default.request


def test_what_is_not_a_setting_is_a_type_error(model: Model) -> None:
    with pytest.raises(TypeError, match="colour"):
        model.sample(colour="red")  # pyright: ignore[reportCallIssue]


def test_a_setting_that_sample_does_not_have_is_refused(tiny_bundle: Bundle) -> None:
    unknown: Any = {"step": 3}
    with pytest.raises(TypeError, match="unexpected keyword argument 'step'"):
        make_run(tiny_bundle, count=1, **unknown)
