"""A model: how it is loaded, what it keeps and says."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import synfer_rt
from synfer_rt import UserError
from synfer_rt.api import Model


def test_a_model_checks_how_it_is_loaded(tiny_bundle_path: Path, tmp_path: Path) -> None:
    odd: list[Any] = [np.array([1, 2]), ["auto"], None]
    for backend in odd:
        with pytest.raises(UserError, match="`backend` must be a text"):
            _ = synfer_rt.load(tiny_bundle_path, backend=backend).backend
    with pytest.raises(UserError, match="`bundle` must be a possible name of a file"):
        synfer_rt.load("a\0b")
    with pytest.raises(UserError, match="`threads` must be from 1 to 1024, got 0"):
        synfer_rt.load(tiny_bundle_path, threads=0)
    with pytest.raises(UserError):
        synfer_rt.load(tmp_path)


def test_engines_stay_loaded(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    model.sample(count=1, steps=1)

    def opened(*_: object) -> None:
        raise AssertionError("an engine is loaded again")

    monkeypatch.setattr("synfer_rt.backends.loaded_engines.open_engine", opened)
    model.sample(count=1, steps=1)


def test_reprs_are_short(model: Model, photos: Path, tmp_path: Path) -> None:
    labels = model.label(photos)
    written = model.write(tmp_path / "out", count=2, steps=1)
    made = model.augment(photos, tmp_path / "made", balance=2, repair_steps=0)
    (sample,) = model.sample(count=1, steps=1)
    for thing in (model, model.bundle, sample, labels, next(iter(labels)), written, made):
        assert len(repr(thing)) < 800, repr(thing)
        assert "array" not in repr(thing)


def test_warnings_are_logged(
    model: Model, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(type(model.bundle), "unread", lambda *_: ("the end", ("zebra",)))
    with caplog.at_level(logging.WARNING, "synfer_rt.jobs"):
        model.sample(labels=["sad"], prompt="a zebra", count=1, steps=1)
    said = caplog.text
    assert "`prompt` is longer than" in said and "these words of `prompt`: zebra" in said


def test_doctor_says_what_works(tiny_bundle_path: Path, tmp_path: Path) -> None:
    found = synfer_rt.doctor(tiny_bundle_path)
    assert found.error is None and found.bundle is not None
    assert any(status.works for status in found.backends)
    assert synfer_rt.doctor(tmp_path).error is not None
