"""The annotator's training on renders; that of photos (tests/export/training) is the same."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

pytest.importorskip("diffusers", reason="training needs synfer-rt[reference]")

from reference.train_annotator import main
from synfer_rt.export.checkpoint.reading import read_checkpoint
from synfer_rt.export.graphs import trained_feranno as feranno
from synfer_rt.export.training.frozen import parts


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


def train(renders: Path, checkpoint: Path, out: Path, epochs: int, *more: str) -> str:
    paths = ["--renders", renders, "--checkpoint", checkpoint, "--out", out]
    arguments = [*map(str, paths), "--epochs", str(epochs), "--width", "16", *more]
    found = CliRunner().invoke(main, arguments, catch_exceptions=False)
    assert found.exit_code == 0, found.output
    return found.output


@pytest.fixture
def directory(mini_checkpoint: Path, tmp_path: Path) -> Path:
    shutil.copytree(mini_checkpoint, tmp_path / "checkpoint")
    return tmp_path / "checkpoint"


def weights(directory: Path) -> bytes:
    return (directory / "annotator" / "model.safetensors").read_bytes()


def test_training_goes_on_and_leaves_an_annotator_that_the_exporter_reads(
    renders: Path, directory: Path, tmp_path: Path
) -> None:
    said = train(renders, directory, tmp_path / "out", 1)
    assert "held-out accuracy" in said and "on 8 images of persons held out" in said
    before = weights(directory)
    assert "going on after 1 epoch" in train(renders, directory, tmp_path / "out", 2)
    assert weights(directory) != before
    checkpoint = read_checkpoint(directory)
    _, scheme = feranno.read_feranno(checkpoint, *parts(checkpoint))
    assert scheme == "affectnet-8"


def test_a_state_of_another_training_is_refused(
    renders: Path, directory: Path, tmp_path: Path
) -> None:
    train(renders, directory, tmp_path / "out", 1, "--views", "1")
    paths = ["--renders", renders, "--checkpoint", directory, "--out", tmp_path / "out"]
    arguments = [*map(str, paths), "--width", "16", "--views", "1", "--images", "48"]
    found = CliRunner().invoke(main, arguments)
    assert found.exit_code == 1 and "was begun with `images=None`" in found.output
