"""Snapshots are sampled alike, once, and set beside the training's log."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

pytest.importorskip("torch", reason="needs synfer-rt[reference]")

import torch

from reference import classifiers, learning_curve, model, train_diffusion

LOG = """\
2026-01-02T03:04:05 steps 196 images 6272 26.1/s loss 0.7916 held-out 0.6366
2026-01-02T03:08:05 steps 375 images 12000 23.9/s loss 0.5916 held-out 0.5405
"""


def test_a_log_says_the_held_out_loss():
    assert learning_curve.held_out_losses(LOG).tolist() == [[6272, 0.6366], [12000, 0.5405]]


@pytest.fixture
def training(tmp_path: Path) -> Path:
    """A training of two snapshots, and judges, none of which has learned anything."""
    torch.manual_seed(0)
    for seen in (6000, 12000):
        denoiser = model.new_denoiser()
        model.channels_last(denoiser)
        torch.nn.init.normal_(denoiser.unet.conv_out.weight, std=0.05)
        train_diffusion.snapshot(tmp_path, denoiser.state_dict(), seen)
    (tmp_path / "diffusion.log").write_text(LOG)
    model.new_vae().save_pretrained(tmp_path / "vae")
    for name in ("judge", "au-reader"):
        classifiers.save(classifiers.NETWORKS[name].build(), tmp_path, name)
    return tmp_path


def test_a_curve_is_written_and_snapshots_are_sampled_once(
    training: Path, monkeypatch: pytest.MonkeyPatch
):
    calls, real = [], learning_curve.sample

    def sample(denoiser, vae, requests, steps):
        calls.append(real(denoiser, vae, requests, steps))
        return calls[-1]

    monkeypatch.setattr(learning_curve, "sample", sample)
    monkeypatch.setattr(learning_curve, "fer_reading", lambda _, images, c: (c, c, c >= 0))
    options = ["--diffusion", training, "--vae", training / "vae", "--classifiers", training]
    options += ["--fer", "photo-trained.tflite"]
    options += ["--out", training / "out", "--work", training / "work", "--count", 4, "--steps", 2]
    for _ in range(2):
        result = CliRunner().invoke(learning_curve.main, [str(option) for option in options])
        assert result.exit_code == 0, result.output
    assert len(calls) == 2 and calls[0].shape == (4, 64, 64, 3)
    assert not np.array_equal(calls[0], calls[1])
    found = json.loads((training / "out" / "learning.json").read_text())
    assert [one["images"] for one in found["snapshots"]] == [6000, 12000]
    assert all(one["fer"][0] == 1 for one in found["snapshots"])
    assert "| 12,000 | 0.540 |" in (training / "out" / "learning.md").read_text()
    assert (training / "out" / "learning.png").stat().st_size > 1000


def test_a_curve_goes_on_where_snapshots_are_gone(training: Path):
    options = ["--diffusion", training, "--vae", training / "vae", "--classifiers", training]
    options += ["--out", training / "out", "--work", training / "work", "--count", 2, "--steps", 1]
    for _ in range(2):
        result = CliRunner().invoke(learning_curve.main, [str(option) for option in options])
        assert result.exit_code == 0, result.output
        (training / "snapshots" / "000006000.safetensors").unlink(missing_ok=True)
    found = json.loads((training / "out" / "learning.json").read_text())
    assert [one["images"] for one in found["snapshots"]] == [6000, 12000]
    assert found["held_out_loss"] == [[6272, 0.6366], [12000, 0.5405]]


def test_a_curve_keeps_what_came_before_its_snapshots(tmp_path: Path):
    settings = {"count": 4}
    scores = {"judge": [0.5, 0.1], "au_agreement": [0.9, 0.1]}
    there = {
        "settings": settings,
        "held_out_loss": [[1000.0, 0.7], [5900.0, 0.6], [6100.0, 0.5]],
        "snapshots": [{"images": n, **scores} for n in (2000, 6000, 8000)],
    }
    file = tmp_path / "learning.json"
    assert learning_curve.earlier(file, settings, 6000) == ([], [])
    file.write_text(json.dumps(there))
    losses, snapshots = learning_curve.earlier(file, settings, 6000)
    assert losses == [[1000.0, 0.7], [5900.0, 0.6]]
    assert snapshots == [{"images": 2000, **scores}]
    with pytest.raises(SystemExit, match=r"learning\.json was made with .*choose another --out"):
        learning_curve.earlier(file, {"count": 8}, 6000)


def test_a_training_without_snapshots_is_named(tmp_path: Path):
    options = ["--diffusion", tmp_path, "--vae", tmp_path, "--classifiers", tmp_path]
    result = CliRunner().invoke(learning_curve.main, [str(option) for option in options])
    assert result.exit_code == 1 and "has no snapshots" in result.output
