"""Guides trained on a tiny UNet's predictions."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch", reason="training needs synfer-rt[export]")
import torch

from synfer_rt.export import train_guide
from synfer_rt.export.checkpoint.reading import read_checkpoint
from synfer_rt.export.networks.guiding_classifier import ExpressionNet, NetConfig, read_guiding
from synfer_rt.export.training import guide
from synfer_rt.export.training.augmentation import generators
from synfer_rt.export.training.calibration import calibration_error
from synfer_rt.export.training.frozen import CleanPrediction
from synfer_rt.vocabulary import label_schemes

SCHEME = "neutral,happy,sad"
SETTINGS: dict[str, Any] = {"classes": SCHEME, "batch": 8, "rate": 3e-3}


@pytest.fixture(scope="module")
def trained(
    mini_checkpoint: Path, photos: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, list[str]]:
    out, said = tmp_path_factory.mktemp("guide") / "latent_classifier", list[str]()
    train_guide(mini_checkpoint, photos, out=out, epochs=3, remark=said.append, **SETTINGS)
    return out, said


def test_the_loss_falls_and_the_exporter_reads_the_guide(trained) -> None:
    out, said = trained
    losses = [float(line.rpartition(" ")[2]) for line in said if line.startswith("epoch")]
    assert losses[-1] < losses[0]
    network, names = read_guiding(out)
    assert isinstance(network, ExpressionNet) and names == label_schemes.scheme(SCHEME)
    assert network.config == NetConfig(4, 8, 1, (32, 64), SCHEME)
    assert any("inputs take" in line for line in said)


def test_the_figures_are_those_of_a_recount_at_each_noise_level(trained) -> None:
    out, _ = trained
    said = json.loads((out / "evaluation.json").read_text())
    lines = [json.loads(line) for line in (out / "held-out.jsonl").open()]
    names, network = label_schemes.scheme(SCHEME), read_guiding(out)[0]
    held = np.load(next(out.parent.glob("__latent_classifier__/held-out-*/latents.npy")))
    with torch.no_grad():
        found = network(torch.from_numpy(held).float()).softmax(-1).numpy()
    wrote = np.array([[line["probabilities"][name] for name in names] for line in lines])
    np.testing.assert_allclose(found, wrote, atol=1e-5)
    truth = np.array([names.index(line["label"]) for line in lines])
    assert [part["level"] for part in said["levels"]] == list(guide.LEVELS)
    for part in said["levels"]:
        rows = np.array([line["level"] == part["level"] for line in lines])
        assert rows.sum() == said["held_out"] == 6
        right = (found.argmax(1) == truth)[rows].mean()
        assert part["accuracy"] == pytest.approx(right, abs=1e-4)
        error = calibration_error(found[rows], truth[rows])
        assert part["calibration"]["ece"] == pytest.approx(error, abs=1e-4)


def test_a_training_that_was_stopped_ends_with_the_same_weights(
    trained, mini_checkpoint: Path, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, keep = tmp_path / "latent_classifier", guide.state.keep

    def stopping(*arguments: Any) -> None:
        keep(*arguments)
        raise KeyboardInterrupt

    monkeypatch.setattr("synfer_rt.export.training.state.keep", stopping)
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            train_guide(mini_checkpoint, photos, out=out, epochs=3, **SETTINGS)
    monkeypatch.undo()
    train_guide(mini_checkpoint, photos, out=out, epochs=3, **SETTINGS)
    names = ("model.safetensors", "evaluation.json", "held-out.jsonl")
    assert all((out / n).read_bytes() == (trained[0] / n).read_bytes() for n in names)


@pytest.mark.parametrize("checkpoint", ["mini_checkpoint", "sd_checkpoint"])
def test_clean_latents_follow_from_either_kind_of_prediction(
    checkpoint: str, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By hand: a UNet that predicts the very noise, or the very v, gives the latents back."""
    read = read_checkpoint(request.getfixturevalue(checkpoint))
    predict = CleanPrediction(read, torch.device("cpu"))
    latents = torch.randn(3, *read.latent_shape, generator=torch.Generator().manual_seed(5))
    level, draws = np.array([0.1, 0.35, 0.65]), generators(0, np.arange(3))
    noise = torch.stack(
        [torch.randn(read.latent_shape, generator=d) for d in generators(0, np.arange(3))]
    )
    alpha = (
        torch.from_numpy(predict._alpha_bar[(level * 1000).astype(int)]).float().view(3, 1, 1, 1)
    )
    seen: dict[str, Any] = {}

    def ideal(latents_in: Any, timestep: Any, given: Any) -> Any:
        seen.update(times=timestep, noisy=latents_in)
        v = alpha.sqrt() * noise - (1 - alpha).sqrt() * latents
        return v if read.prediction_type == "v_prediction" else noise

    monkeypatch.setattr(predict._denoiser, "predict", ideal)
    torch.testing.assert_close(predict(latents, level, draws), latents, atol=1e-4, rtol=1e-4)
    assert seen["times"].tolist() == [100, 350, 650]
    expected = alpha.sqrt() * latents + (1 - alpha).sqrt() * noise
    torch.testing.assert_close(seen["noisy"], expected)


def test_networks_fit_the_size(mini_checkpoint: Path) -> None:
    """synfer-mini's own shapes, and Stable Diffusion's: the last maps have four positions."""

    class Sized:
        def __init__(self, latent: int, image: int) -> None:
            self.latent_shape, self.image_size = (4, latent, latent), (image, image)

    def config(latent: int, image: int, space: Any) -> NetConfig:
        return guide.net_config(Sized(latent, image), space, SCHEME)  # type: ignore[arg-type]

    assert config(16, 64, "latent") == NetConfig(4, 16, 1, (32, 64, 96), SCHEME)
    assert config(16, 64, "image") == NetConfig(3, 64, 2, (24, 40, 64, 96), SCHEME)
    assert config(64, 512, "latent").widths == (32, 64, 96, 96, 96)
    assert config(64, 512, "image").patch == 16
    for latent, image in ((16, 64), (24, 96), (64, 512), (96, 768)):
        for space in ("latent", "image"):
            found = config(latent, image, space)
            shape = (1, found.channels, found.size, found.size)
            assert ExpressionNet(found).eval()(torch.zeros(shape)).shape == (1, 3)


def test_a_batch_is_moved_as_one() -> None:
    x = torch.arange(16.0).reshape(1, 1, 4, 4).repeat(2, 1, 1, 1)
    moved = guide.shifted(x, 1, np.random.default_rng(1))
    assert moved.shape == x.shape and torch.equal(moved[0], moved[1])
    assert set(moved.flatten().tolist()) <= set(x.flatten().tolist())
