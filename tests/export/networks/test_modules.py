"""The exported modules mean what the formulas of the papers say."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("diffusers", reason="the build side needs synfer-rt[export]")
import diffusers
import torch

from synfer_rt.export.checkpoint.contents import Checkpoint
from synfer_rt.export.checkpoint.reading import read_checkpoint
from synfer_rt.export.networks.modules import (
    Conditioner,
    Decoder,
    Denoiser,
    Encoder,
)
from synfer_rt.export.networks.one_branch import ConditionalDenoiser
from tests.export.decoupled import Decoupled, DecoupledUNet, fineface, synfer
from tests.export.tiny_checkpoint import make_sd2, save_adapter, save_fineface


@pytest.fixture
def checkpoint(sd_checkpoint: Path) -> Checkpoint:
    return read_checkpoint(sd_checkpoint)


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def aus_of(checkpoint: Checkpoint) -> torch.Tensor:
    """[B, 2, A]; the unconditional branch has AUs too, so that no branch is right by chance."""
    return random(2, 2, checkpoint.units).abs()


def condition(checkpoint: Checkpoint, au_scale: torch.Tensor) -> dict[str, torch.Tensor]:
    conditioner = Conditioner(checkpoint.text_encoder, checkpoint.unet, checkpoint.adapter)
    tokens = torch.arange(2 * 2 * 20).view(2, 2, 20)
    with torch.no_grad():
        outputs = conditioner(tokens, aus_of(checkpoint), au_scale)
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
        denoiser = Denoiser(checkpoint.unet, tuple(conditioning), checkpoint.adapter)
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


@pytest.mark.parametrize("branch", [0, 1])
@pytest.mark.parametrize(
    ("tokens", "norm", "names"),
    [
        (1, True, ("text", "au_bias")),
        (4, False, ("text", "au_tokens", "au_weight")),
        (4, True, ("text", "au_tokens", "au_weight")),
    ],
)
def test_every_adapter_of_synfers_layout_is_decoupled_attention(
    plain_checkpoint: Path, tmp_path: Path, tokens: int, norm: bool, names: tuple, branch: int
) -> None:
    path = tmp_path / "adapter.safetensors"
    unet = diffusers.UNet2DConditionModel.from_pretrained(plain_checkpoint / "unet").eval()
    save_adapter(unet, path, tokens=tokens, norm=norm)
    adapted = read_checkpoint(plain_checkpoint, path)
    assert_decoupled(adapted, unet, synfer(unet, path), names, branch)


@pytest.mark.parametrize("branch", [0, 1])
def test_fineface_is_decoupled_attention_on_intensities_up_to_5(
    tmp_path: Path, branch: int
) -> None:
    make_sd2(tmp_path / "sd2")
    unet: Any = diffusers.UNet2DConditionModel.from_pretrained(tmp_path / "sd2" / "unet").eval()
    save_fineface(unet, tmp_path / "fineface")
    (tmp_path / "fineface" / "pytorch_lora_weights.safetensors").unlink()
    adapted = read_checkpoint(tmp_path / "sd2", tmp_path / "fineface")
    decoupled = fineface(unet, tmp_path / "fineface")
    assert_decoupled(adapted, unet, decoupled, ("text", "au_bias"), branch)


def assert_decoupled(
    checkpoint: Checkpoint, unet: Any, decoupled: Decoupled, names: tuple, branch: int
) -> None:
    """The denoiser's prediction is that of `unet` with its decoupled attention."""
    scale = torch.tensor([0.7, 1.5])
    conditioning = condition(checkpoint, scale)
    assert tuple(conditioning) == names
    found = step(checkpoint, conditioning, guidance=torch.full((2,), float(branch)))[2]
    text, aus = conditioning["text"][:, branch], aus_of(checkpoint)[:, branch]
    with torch.no_grad():
        decoupled.condition(aus, scale)
        wanted = unet(random(2, 4, 8, 8), 321, text).sample
        decoupled.condition(aus, torch.zeros(2))
        without = unet(random(2, 4, 8, 8), 321, text).sample
    assert (wanted - without).abs().max() > 1e-2
    torch.testing.assert_close(found, wanted, atol=2e-5, rtol=2e-5)


def test_aus_of_the_class_labels_have_the_adapters_intensities(mini_checkpoint: Path) -> None:
    checkpoint = read_checkpoint(mini_checkpoint)
    assert checkpoint.adapter is not None
    adapter = replace(checkpoint.adapter, maximum=5.0)
    conditioner = Conditioner(checkpoint.text_encoder, checkpoint.unet, adapter, ("aus",))
    aus = aus_of(checkpoint)
    with torch.no_grad():
        labels = conditioner(torch.zeros(2, 2, 24).long(), aus, torch.tensor([1.0, 0.5]))[-1]
    torch.testing.assert_close(labels, 5 * aus * torch.tensor([1.0, 0.5]).view(2, 1, 1))


def test_guidance_extrapolates_from_the_unconditional_branch(checkpoint: Checkpoint) -> None:
    conditioning = condition(checkpoint, torch.ones(2))
    u, c, guided = (
        step(checkpoint, conditioning, guidance=torch.tensor(w))[2]
        for w in ([0.0, 0.0], [1.0, 1.0], [3.0, -2.0])
    )
    weight = torch.tensor([3.0, -2.0]).view(2, 1, 1, 1)
    torch.testing.assert_close(guided, u + weight * (c - u), atol=1e-5, rtol=1e-5)


def test_without_guidance_the_conditional_branch_is_all(checkpoint: Checkpoint) -> None:
    conditioning = condition(checkpoint, torch.tensor([0.7, 1.5]))
    wanted = step(checkpoint, conditioning, guidance=torch.ones(2))
    conditioning = {  # the other branch is not read
        name: torch.stack([torch.full_like(value[:, 1], torch.nan), value[:, 1]], 1)
        for name, value in conditioning.items()
    }
    denoiser = Denoiser(checkpoint.unet, tuple(conditioning), checkpoint.adapter)
    given = (random(2, 4, 8, 8), random(2, 3, 4, 8, 8, seed=1), torch.tensor(321.0))
    with torch.no_grad():
        found = ConditionalDenoiser(denoiser)(*given, random(4, 5, seed=2), *conditioning.values())
    for value, expected in zip(found, wanted, strict=True):
        torch.testing.assert_close(value, expected, atol=2e-5, rtol=1e-5)


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
