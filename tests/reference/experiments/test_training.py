"""The classifier that the experiments train, and the real faces' split."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch", reason="the experiments need synfer-rt[reference]")

from reference import classifiers, renders
from reference.experiments import training
from reference.experiments.training import TrainingSet, one_hot


def bright_and_dark(count: int, share: float = 0.5) -> TrainingSet:
    """Brightness is the class: dark ones are happy, the `share` of bright ones neutral."""
    bright = np.arange(count) < share * count
    noise = np.random.default_rng(0).integers(0, 20, (count, 64, 64, 3))
    images = (noise + np.where(bright, 200, 30)[:, None, None, None]).astype(np.uint8)
    return TrainingSet(images, one_hot(np.where(bright, 0, 1)))


def test_real_faces_are_held_out_identities_and_tests_are_other_ones() -> None:
    identity = np.repeat(np.arange(0, 96), 2)
    images = np.broadcast_to(identity[:, None, None, None], (192, 2, 2, 3)).astype(np.uint8)
    table = {"identity": identity, "label": np.where(np.arange(192) % 2, -1, 3)}
    data = renders.Renders(images, table, "key")
    rows = [training.real_rows(data, test) for test in (False, True)]
    train, test = (training.real_faces(data, some) for some in rows)
    assert train.images[:, 0, 0, 0].tolist() == [0, 32, 64]
    assert test.images[:, 0, 0, 0].tolist() == [16, 48, 80]
    assert set(train.classes) == {3} and set(identity[rows[0]]) == {0, 32, 64}


def test_a_network_learns_and_the_seed_decides_it() -> None:
    faces = bright_and_dark(32)
    networks = [training.train(faces, seed, 25, batch=16) for seed in (1, 1, 2)]
    read = [classifiers.predict(network, faces.images) for network in networks]
    assert (read[0].argmax(1) == faces.classes).mean() > 0.9
    assert np.array_equal(read[0], read[1]) and not np.array_equal(read[0], read[2])


def test_trainings_are_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    faces, calls = bright_and_dark(16), []
    real_train = training.train
    monkeypatch.setattr(training, "train", lambda *a: calls.append(a[1]) or real_train(*a))
    first, again, other = (training.reading(faces, faces, s, 2, True, tmp_path) for s in (3, 3, 4))
    assert calls == [3, 4] and first.shape == other.shape == (16,)
    assert np.array_equal(first, again)


def test_arms_are_compared_within_a_repetition() -> None:
    draws = np.array([0.5, 0.6, 0.8])  # of faces: easy ones for one arm are so for the other
    others = draws + np.array([0.1, 0.1, 0.13])
    found = training.over_repetitions({"base": draws.tolist(), "other": others.tolist()}, "base")
    mean, half = found["other"]["gain"]
    assert mean == pytest.approx(0.11) and half < 0.2 * found["other"]["mean"][1]
    assert found["other"]["ratio"][0] == pytest.approx(np.mean([0.6 / 0.5, 0.7 / 0.6, 0.93 / 0.8]))
    assert found["base"]["gain"] == (0, 0) and found["base"]["ratio"] == (1, 0)
    assert found["base"]["deviation"] == pytest.approx(np.std(draws, ddof=1))
