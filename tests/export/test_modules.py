"""The exported modules mean what the formulas of the papers say."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("diffusers", reason="the build side needs synfer-rt[export]")
import diffusers
import torch

from synfer_rt.export.checkpoint import Checkpoint, read_checkpoint
from synfer_rt.export.modules import Conditioner, Decoder, Denoiser, Encoder
from tests.export.decoupled import DecoupledUNet


@pytest.fixture
def checkpoint(sd_checkpoint: Path) -> Checkpoint:
    return read_checkpoint(sd_checkpoint)


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def condition(checkpoint: Checkpoint, au_scale: torch.Tensor) -> dict[str, torch.Tensor]:
    conditioner = Conditioner(checkpoint.text_encoder, checkpoint.unet, checkpoint.adapter)
    tokens = torch.arange(2 * 2 * 20).view(2, 2, 20)
    with torch.no_grad():
        outputs = conditioner(tokens, random(2, 2, 41).abs(), au_scale)
    return dict(zip(conditioner.outputs, outputs, strict=True))


def step(checkpoint: Checkpoint, conditioning: dict[str, torch.Tensor], **inputs: Any) -> Any:
    given = {
        "latents": random(2, 4, 8, 8),
        "history": random(2, 3, 4, 8, 8, seed=1),
        "timestep": torch.tensor(321.0),
        "guidance": torch.tensor([1.0, 4.0]),
        "coefficients": random(4, 5, seed=2),
    } | inputs
    with torch.no_grad():
        denoiser = Denoiser(checkpoint.unet, tuple(conditioning))
        return denoiser(*given.values(), *conditioning.values())


@pytest.mark.parametrize("branch", [0, 1])
def test_the_au_bias_is_exactly_decoupled_attention_over_one_token(
    checkpoint: Checkpoint, sd_checkpoint: Path, branch: int
) -> None:
    scale = torch.tensor([0.7, 1.5])
    conditioning = condition(checkpoint, scale)
    guidance = torch.full((2,), float(branch))
    found = step(checkpoint, conditioning, guidance=guidance)[2]
    unet = diffusers.UNet2DConditionModel.from_pretrained(sd_checkpoint / "unet").eval()
    decoupled = DecoupledUNet(unet, sd_checkpoint / "au_adapter.safetensors")
    assert len(decoupled.layers) == 4
    text, aus = conditioning["text"][:, branch], random(2, 2, 41).abs()[:, branch]
    with torch.no_grad():
        wanted = decoupled(random(2, 4, 8, 8), 321, text, aus, scale)
        without = decoupled(random(2, 4, 8, 8), 321, text, aus, torch.zeros(2))
    assert (wanted - without).abs().max() > 1e-2
    torch.testing.assert_close(found, wanted, atol=2e-5, rtol=1e-5)


def test_guidance_extrapolates_from_the_unconditional_branch(checkpoint: Checkpoint) -> None:
    conditioning = condition(checkpoint, torch.ones(2))
    u, c, guided = (
        step(checkpoint, conditioning, guidance=torch.tensor(w))[2]
        for w in ([0.0, 0.0], [1.0, 1.0], [3.0, -2.0])
    )
    weight = torch.tensor([3.0, -2.0]).view(2, 1, 1, 1)
    torch.testing.assert_close(guided, u + weight * (c - u), atol=1e-5, rtol=1e-5)


def test_the_solver_step_is_the_matrix_on_the_stack(checkpoint: Checkpoint) -> None:
    next_latents, next_history, prediction = step(checkpoint, condition(checkpoint, torch.ones(2)))
    history = random(2, 3, 4, 8, 8, seed=1)
    stack = [random(2, 4, 8, 8), prediction, *history.unbind(1)]
    rows: list[Any] = [
        sum(w * x for w, x in zip(row, stack, strict=True)) for row in random(4, 5, seed=2)
    ]
    torch.testing.assert_close(next_latents, rows[0], atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(next_history, torch.stack(rows[1:], 1), atol=1e-5, rtol=1e-5)


def test_decoding_the_encoded_mean_is_the_vae_unscaled(checkpoint: Checkpoint) -> None:
    vae = checkpoint.vae
    images = torch.rand(2, 3, 16, 16)
    with torch.no_grad():
        mean, logvar = Encoder(vae)(images)
        found = Decoder(vae)(mean)
        posterior = vae.encode(images * 2 - 1).latent_dist
        wanted = (vae.decode(posterior.mean).sample / 2 + 0.5).clamp(0, 1)
    torch.testing.assert_close(found, wanted, atol=1e-5, rtol=1e-5)
    scaled_std = posterior.std * vae.config.scaling_factor
    torch.testing.assert_close((logvar / 2).exp(), scaled_std, atol=1e-6, rtol=1e-5)
