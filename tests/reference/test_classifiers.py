"""Training the small networks."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result

pytest.importorskip("torch", reason="training needs PyTorch (synfer-rt[reference])")

from reference import classifiers
from synfer_rt.vocabulary import facs


@pytest.fixture
def train(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(classifiers, "CHECKPOINT_SECONDS", 0.0)
    rng = np.random.default_rng(0)
    (tmp_path / "renders").mkdir()
    np.savez(
        tmp_path / "renders" / "00000.npz",
        images=rng.integers(0, 256, (64, 64, 64, 3), np.uint8),
        label=np.arange(64) % 8,
        identity=np.arange(64) // 8,
        au=rng.random((64, len(facs.OPENGRAPHAU_41)), np.float32),
        age=rng.random(64),
        gender=rng.random(64),
        ancestry=rng.dirichlet((0.3, 0.3, 0.3), 64),
    )

    def invoke(network: str, minutes: float) -> Result:
        options = ["--renders", tmp_path / "renders", "--out", tmp_path / "out", "--batch", 4]
        options += ["--network", network, "--minutes", minutes]
        return CliRunner().invoke(classifiers.main, [str(option) for option in options])

    return invoke


def stop_after(monkeypatch: pytest.MonkeyPatch, steps: int) -> None:
    """Let a training die in its step `steps` + 1."""
    augment, left = classifiers.augment, iter(range(steps))

    def dying(*arguments):
        if next(left, None) is None:
            raise RuntimeError("killed")
        return augment(*arguments)

    monkeypatch.setattr(classifiers, "augment", dying)


@pytest.mark.parametrize("network", ["judge", "au-reader", "au-labeller", "attribute-reader"])
def test_a_training_that_died_goes_on_where_it_was(train, tmp_path, monkeypatch, network):
    with monkeypatch.context() as patch:
        stop_after(patch, 3)
        assert str(train(network, 10.0).exception) == "killed"
    assert not (tmp_path / "out" / f"{network}.safetensors").exists()
    said = train(network, 0.0001).output
    assert "resuming after 12 images" in said
    classifiers.load(tmp_path / "out", network)


def test_the_time_before_counts(train, tmp_path, monkeypatch):
    import torch

    with monkeypatch.context() as patch:
        stop_after(patch, 1)
        train("judge", 10.0)
    file = tmp_path / "out" / "judge-training.pt"
    torch.save({**torch.load(file, weights_only=True), "seconds": 60.0}, file)
    assert "judge: 4 images in 1 min" in train("judge", 1.0).output


@pytest.mark.parametrize("network", sorted(classifiers.NETWORKS))
def test_those_of_the_shipped_bundle_are_there(network):
    there = Path(classifiers.__file__).parent / "networks"
    faces = np.random.default_rng(0).integers(0, 256, (2, 64, 64, 3), np.uint8)
    outputs = classifiers.predict(classifiers.load(there, network), faces)
    assert outputs.shape == (2, classifiers.NETWORKS[network].task.outputs)
    assert np.isfinite(outputs).all()


def test_a_finished_training_starts_anew(train, tmp_path):
    for _ in range(2):
        assert "going on" not in train("judge", 0.001).output
    assert [file.name for file in (tmp_path / "out").iterdir()] == ["judge.safetensors"]
