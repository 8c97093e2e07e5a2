"""The annotator's training, end to end on a few images."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

pytest.importorskip("diffusers", reason="training needs synfer-rt[reference]")

from reference import classifiers, train_annotator
from reference.train_annotator import Readings, encode, load, main
from synfer_rt.export.checkpoint.reading import read_checkpoint
from synfer_rt.export.graphs import trained_feranno as feranno
from synfer_rt.export.networks.feranno import FERAnno
from synfer_rt.export.networks.modules import Conditioner, Denoiser


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
    assert "held-out accuracy" in train(renders, directory, tmp_path / "out", 1)
    before = weights(directory)
    assert "resuming after 1 epochs" in train(renders, directory, tmp_path / "out", 2)
    assert weights(directory) != before
    checkpoint = read_checkpoint(directory)
    settings = checkpoint.settings
    conditioner = Conditioner(
        checkpoint.text_encoder, checkpoint.unet, checkpoint.adapter, settings.class_labels
    )
    denoiser = Denoiser(checkpoint.unet, conditioner.outputs, checkpoint.adapter)
    assert feranno.read_feranno(checkpoint, conditioner, denoiser) is not None


def test_a_head_can_begin_from_that_of_an_earlier_unet(
    renders: Path, directory: Path, tmp_path: Path
) -> None:
    train(renders, directory, tmp_path / "out", 3)
    before = weights(directory)
    train(renders, directory, tmp_path / "new", 0, "--start", str(directory / "annotator"))
    assert weights(directory) == before
    train(renders, directory, tmp_path / "other", 0)
    assert weights(directory) != before


def test_an_image_is_read_once(
    renders: Path, directory: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    train(renders, directory, tmp_path / "out", 1, "--views", "1")
    read, seen = FERAnno.read, []

    def counted(self, latents):
        seen.append(len(latents))
        return read(self, latents)

    monkeypatch.setattr(FERAnno, "read", counted)
    # Once for the shapes when it is made, once more for the readings', then the held-out faces.
    train(renders, directory, tmp_path / "out", 2, "--views", "1")
    assert seen == [1, 1, 8]
    # A second view is read of the 56 faces, and the first stays.
    seen.clear()
    train(renders, directory, tmp_path / "out", 3, "--views", "2")
    assert seen == [1, 1, 32, 24, 8]


def test_views_are_mirrored_by_turns(renders: Path, directory: Path, tmp_path: Path) -> None:
    source = read_checkpoint(directory)
    annotator, encoder, _ = load(source, 16)
    rows, calm = np.arange(4), lambda images, generator: images
    images = np.random.default_rng(0).integers(0, 256, (4, 32, 32, 3), np.uint8)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(classifiers, "augment", calm)
        patch.setattr(train_annotator, "encode", lambda encoder, x, generator: encode(encoder, x))
        found = Readings(tmp_path / "readings", annotator.eval(), encoder, images, rows, 2)
        mirrored = Readings(tmp_path / "mirrored", annotator, encoder, images[:, :, ::-1], rows, 2)
    for one, other in zip(found[np.arange(4, 8)][0], mirrored[np.arange(4)][0], strict=True):
        np.testing.assert_allclose(one, other, atol=2e-3)


def test_a_state_of_another_training_is_refused(
    renders: Path, directory: Path, tmp_path: Path
) -> None:
    train(renders, directory, tmp_path / "out", 1)
    paths = ["--renders", renders, "--checkpoint", directory, "--out", tmp_path / "out"]
    found = CliRunner().invoke(main, [*map(str, paths), "--images", "16"])
    assert found.exit_code == 1 and "remove it to start this one" in found.output
