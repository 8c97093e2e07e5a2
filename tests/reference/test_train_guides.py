"""The guides' training on renders, with synfer-mini's VAE and UNet."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

pytest.importorskip("diffusers", reason="training needs synfer-rt[reference]")
import torch

from reference.train_guides import main
from synfer_rt.export.checkpoint.reading import read_checkpoint
from synfer_rt.export.networks.guiding_classifier import ExpressionNet, read_guiding
from synfer_rt.export.training import guide
from synfer_rt.export.training.augmentation import generators
from synfer_rt.export.training.frozen import CleanPrediction


@pytest.fixture
def renders(tmp_path: Path) -> Path:
    """One shard: brightness is the expression; identity 0 is held out, all classes in it."""
    directory = tmp_path / "renders"
    directory.mkdir()
    draw = np.random.default_rng(0)
    labels, identity = np.arange(24) % 8, np.arange(24) // 8
    shade = (30 + 25 * labels)[:, None, None, None]
    images = (shade + draw.integers(0, 10, (24, 64, 64, 3))).astype(np.uint8)
    np.savez(directory / "00000.npz", images=images, label=labels, identity=identity)
    return directory


def train(renders: Path, checkpoint: Path, out: Path, epochs: int, space: str) -> str:
    paths = ["--renders", renders, "--checkpoint", checkpoint, "--out", out]
    arguments = [*map(str, paths), "--epochs", str(epochs), "--space", space, "--batch", "8"]
    found = CliRunner().invoke(main, arguments, catch_exceptions=False)
    assert found.exit_code == 0, found.output
    return found.output


def test_training_goes_on_and_leaves_guides_that_the_exporter_reads(
    renders: Path, shipped_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(shipped_checkpoint, tmp_path / "checkpoint")
    said = train(renders, tmp_path / "checkpoint", tmp_path / "out", 1, "latent")
    assert said.count("held-out accuracy") == len(guide.LEVELS)

    def no_more(*arguments):
        raise AssertionError("encoded again")

    monkeypatch.setattr(guide, "encoded", no_more)
    assert "going on after 1 epoch" in train(
        renders, tmp_path / "checkpoint", tmp_path / "out", 2, "latent"
    )
    monkeypatch.undo()
    train(renders, tmp_path / "checkpoint", tmp_path / "out", 1, "image")
    for folder, channels in (("latent_classifier", 4), ("image_classifier", 3)):
        network, names = read_guiding(tmp_path / "checkpoint" / folder)
        assert isinstance(network, ExpressionNet) and len(names) == 8
        assert network.config.channels == channels


@torch.no_grad()
def test_a_prediction_from_little_noise_is_nearly_the_face(shipped_checkpoint: Path) -> None:
    predict = CleanPrediction(read_checkpoint(shipped_checkpoint), torch.device("cpu"))
    bank = np.load(shipped_checkpoint / "layouts.npz")["latents"][:4].astype("f4")
    latents = torch.from_numpy(bank)
    near, far = (
        predict(latents, np.full(4, level), generators(0, np.arange(4))) for level in (0.02, 0.6)
    )
    errors = [(x - latents).square().mean().sqrt().item() for x in (near, far)]
    assert errors[0] < 0.15 < errors[1] < 1.0
