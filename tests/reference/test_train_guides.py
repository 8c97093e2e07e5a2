"""The guiding classifiers' training, end to end on a few images with synfer-mini's VAE and UNet."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

pytest.importorskip("diffusers", reason="training needs synfer-rt[reference]")
import torch

from reference import train_guides
from reference.train_guides import Source, accuracy, main
from synfer_rt.export.networks.guiding_classifier import ExpressionNet, read_guiding


@pytest.fixture(scope="module")
def source(shipped_checkpoint: Path) -> Source:
    return Source(shipped_checkpoint)


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
    assert said.count("accuracy") == len(train_guides.LEVELS)

    def no_more(*arguments):
        raise AssertionError("encoded again")

    monkeypatch.setattr(Source, "encode", no_more)
    assert "resuming after 1" in train(
        renders, tmp_path / "checkpoint", tmp_path / "out", 2, "latent"
    )
    train(renders, tmp_path / "checkpoint", tmp_path / "out", 1, "image")
    for folder, channels in (("latent_classifier", 4), ("image_classifier", 3)):
        network, names = read_guiding(tmp_path / "checkpoint" / folder)
        assert isinstance(network, ExpressionNet) and len(names) == 8
        assert network.config.channels == channels


@torch.no_grad()
def test_a_prediction_from_little_noise_is_nearly_the_face(
    source: Source, shipped_checkpoint: Path
) -> None:
    bank = np.load(shipped_checkpoint / "layouts.npz")["latents"][:4].astype("f4")
    latents = torch.from_numpy(bank)
    near, far = (
        source.predict(latents, torch.full((4,), level), torch.Generator().manual_seed(0))
        for level in (0.02, 0.6)
    )
    errors = [(x - latents).square().mean().sqrt().item() for x in (near, far)]
    assert errors[0] < 0.15 < errors[1] < 1.0


def test_accuracy_is_the_share_of_right_answers() -> None:
    config = train_guides.CONFIGS["latent"][1]
    network = ExpressionNet(config).eval()
    x = np.random.default_rng(0).standard_normal((10, 4, 16, 16)).astype(np.float16)
    with torch.no_grad():
        read = network(torch.from_numpy(x).float()).argmax(1).numpy()
    assert accuracy(network, x, read) == 1.0
    assert accuracy(network, x, (read + (np.arange(10) < 4)) % 8) == pytest.approx(0.6)


def test_a_batch_is_moved_as_one() -> None:
    x = torch.arange(16.0).reshape(1, 1, 4, 4).repeat(2, 1, 1, 1)
    moved = train_guides.shifted(x, 1, np.random.default_rng(1))
    assert moved.shape == x.shape and torch.equal(moved[0], moved[1])
    assert set(moved.flatten().tolist()) <= set(x.flatten().tolist())
