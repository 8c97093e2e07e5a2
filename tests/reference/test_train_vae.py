"""Training the VAE, and its decoder alone."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

pytest.importorskip("torch", reason="training needs PyTorch (synfer-rt[reference])")

import torch
from diffusers import AutoencoderKL

from reference import classifiers, model, train_vae


@pytest.fixture
def train(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(train_vae, "DISCRIMINATOR_ALONE", 4)
    rng = np.random.default_rng(0)
    (tmp_path / "renders").mkdir()
    np.savez(
        tmp_path / "renders" / "00000.npz",
        images=rng.integers(0, 256, (64, 64, 64, 3), np.uint8),
        label=np.arange(64) % 8,
        identity=np.arange(64) // 2,
    )

    def invoke(out: str, *options: str | Path) -> AutoencoderKL:
        given = ["--renders", tmp_path / "renders", "--out", tmp_path / out, "--batch", 4]
        given += ["--minutes", 0.03, "--adversarial-from", 0, *options]
        result = CliRunner().invoke(train_vae.main, [str(option) for option in given])
        assert result.exit_code == 0, result.output
        return AutoencoderKL.from_pretrained(tmp_path / out / "vae")

    return invoke


@pytest.mark.parametrize("options", [(), pytest.param(("--bf16",), marks=pytest.mark.slow)])
def test_training_the_decoder_alone_leaves_every_latent_as_it_was(train, tmp_path, options):
    whole = train("whole")
    finetuned = train("decoder", "--decoder-of", tmp_path / "whole" / "vae", *options)
    assert finetuned.dtype == torch.float32
    images = torch.rand(2, 3, 64, 64) * 2 - 1
    with torch.no_grad():
        latents = model.posterior(whole, images).mean
        assert torch.equal(model.posterior(finetuned, images).mean, latents)
        difference = model.decoded(finetuned, latents) - model.decoded(whole, latents)
    assert difference.abs().max() > 1e-3


def test_the_perceptual_loss_heeds_what_the_network_sees():
    network = classifiers.residual_network(8).eval()
    images = torch.rand(2, 3, 64, 64) * 2 - 1
    small, large = (
        train_vae.perceptual_loss(network, images + s * torch.randn_like(images), images).item()
        for s in (0.05, 0.5)
    )
    assert train_vae.perceptual_loss(network, images, images).item() == 0
    assert 0 < small < large


def test_the_decoder_learns_by_the_labellers_features(train, tmp_path, monkeypatch):
    for name in train_vae.PERCEIVED_BY:
        classifiers.save(classifiers.NETWORKS[name].build(), tmp_path, name)
    gradients, networks = [], []

    def recorded(network, output, target):
        loss = perceptual_loss(network, output, target)
        loss.register_hook(lambda gradient: gradients.append(gradient.item()))
        networks.append(id(network))
        return loss

    perceptual_loss = train_vae.perceptual_loss
    monkeypatch.setattr(train_vae, "perceptual_loss", recorded)
    train("whole")
    assert not gradients
    train("decoder", "--decoder-of", tmp_path / "whole" / "vae", "--classifiers", tmp_path)
    assert gradients
    assert len(set(networks)) == len(train_vae.PERCEIVED_BY)
    assert set(gradients) == {train_vae.PERCEPTUAL_WEIGHT}


def test_the_adversary_gets_its_share_of_the_gradient():
    layer = torch.nn.Linear(3, 1)
    output = layer(torch.ones(2, 3))
    weight = train_vae.adversarial_weight(output.sum(), 5 * output.sum(), layer.weight)
    assert weight.item() == pytest.approx(train_vae.ADVERSARIAL_SHARE / 5, rel=1e-4)
    weak = train_vae.adversarial_weight(output.sum(), 0.1 * output.sum(), layer.weight)
    assert weak.item() == 1.0
