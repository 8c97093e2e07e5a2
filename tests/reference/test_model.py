"""What is trained is what is exported."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("torch", reason="training needs PyTorch (synfer-rt[reference])")

import torch

from reference import model, train_vae
from reference.tokenizer import MAX_LENGTH
from synfer_rt.export.files.au_adapter import read_adapter
from synfer_rt.export.networks.modules import Conditioner, Denoiser, adapter_layers

SETTINGS = {"name": "test", "class_labels": ["pooled_text", "aus"]}


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A saved model with random weights, the zero-initialised ones included."""
    torch.manual_seed(0)
    denoiser = model.new_denoiser()
    for parameter in denoiser.unet.conv_out.parameters():
        torch.nn.init.normal_(parameter, std=0.05)
    directory = tmp_path_factory.mktemp("model") / "checkpoint"
    model.save(directory, denoiser, model.new_vae(), SETTINGS)
    return directory


@torch.no_grad()
def test_the_exported_modules_predict_what_training_predicted(trained: Path):
    denoiser, _ = model.load(trained)
    denoiser.eval()
    draw = torch.Generator().manual_seed(1)
    latents = torch.randn(3, *model.LATENT, generator=draw)
    tokens = torch.randint(2, 80, (3, MAX_LENGTH), generator=draw)
    eos = denoiser.text_encoder.config.eos_token_id
    assert isinstance(eos, int)
    tokens[:, -1] = eos
    aus = torch.rand(3, 41, generator=draw)
    wanted = denoiser(latents, torch.full((3,), 400), tokens, aus)

    adapter = read_adapter(
        trained / "au_adapter.safetensors", adapter_layers(denoiser.unet), model.TEXT_WIDTH
    )
    fresh, _ = model.load(trained)
    conditioner = Conditioner(fresh.text_encoder, fresh.unet, adapter, SETTINGS["class_labels"])
    engine = Denoiser(fresh.unet, conditioner.outputs).eval()

    def both(x: torch.Tensor) -> torch.Tensor:
        return torch.stack([torch.zeros_like(x), x], 1)

    conditioning = conditioner.eval()(both(tokens), both(aus), torch.ones(3))
    *_, prediction = engine(
        latents,
        torch.zeros(3, 3, *model.LATENT),
        torch.tensor(400.0),
        torch.ones(3),  # guidance 1 is the conditional prediction
        torch.zeros(4, 5),
        *conditioning,
    )
    assert wanted.std() > 0.01
    torch.testing.assert_close(prediction, wanted, rtol=1e-4, atol=1e-4 * wanted.abs().max())


@torch.no_grad()
def test_standardised_latents_decode_to_the_same_images():
    torch.manual_seed(0)
    vae = model.new_vae().eval()
    images = torch.rand(64, 3, 64, 64) * 2 - 1
    before = model.decoded(vae, model.posterior(vae, images).mean)
    train_vae.standardise_latents(vae, images)
    latents = model.posterior(vae, images)
    after = model.decoded(vae, latents.mean)
    sampled = latents.sample()
    torch.testing.assert_close(after, before, rtol=1e-3, atol=1e-3)
    assert sampled.mean((0, 2, 3)).abs().max() < 0.05
    assert (sampled.std((0, 2, 3)) - 1).abs().max() < 0.05
