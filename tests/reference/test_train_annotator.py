"""The annotator's training, end to end on a few images."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

pytest.importorskip("diffusers", reason="training needs synfer-rt[reference]")

from reference.train_annotator import main
from synfer_rt.export import annotator as feranno
from synfer_rt.export.checkpoint import read_checkpoint
from synfer_rt.export.modules import Conditioner, Denoiser


@pytest.fixture
def renders(tmp_path: Path) -> Path:
    """One shard: brightness is the expression; identity 0 is held out, all classes in it."""
    directory = tmp_path / "renders"
    directory.mkdir()
    draw = np.random.default_rng(0)
    labels = np.arange(64) % 8
    shade = (30 + 25 * labels)[:, None, None, None]
    images = (shade + draw.integers(0, 10, (64, 32, 32, 3))).astype(np.uint8)
    identity = np.arange(64) // 8
    np.savez(directory / "00000.npz", images=images, label=labels.astype("i1"), identity=identity)
    return directory


def train(renders: Path, checkpoint: Path, out: Path, images: int) -> str:
    paths = ["--renders", renders, "--checkpoint", checkpoint, "--out", out]
    arguments = [*map(str, paths), "--images", str(images), "--width", "16"]
    found = CliRunner().invoke(main, arguments, catch_exceptions=False)
    assert found.exit_code == 0, found.output
    return found.output


def test_training_goes_on_and_leaves_an_annotator_that_the_exporter_reads(
    renders: Path, mini_checkpoint: Path, tmp_path: Path
) -> None:
    directory = tmp_path / "checkpoint"
    shutil.copytree(mini_checkpoint, directory)
    assert "held-out accuracy" in train(renders, directory, tmp_path / "out", 64)
    before = (directory / "annotator" / "model.safetensors").read_bytes()
    assert "going on after 64 images" in train(renders, directory, tmp_path / "out", 128)
    assert (directory / "annotator" / "model.safetensors").read_bytes() != before
    checkpoint = read_checkpoint(directory)
    settings = checkpoint.settings
    conditioner = Conditioner(
        checkpoint.text_encoder, checkpoint.unet, checkpoint.adapter, settings.class_labels
    )
    denoiser = Denoiser(checkpoint.unet, conditioner.outputs, checkpoint.adapter)
    assert feranno.read_annotator(checkpoint, conditioner, denoiser) is not None
