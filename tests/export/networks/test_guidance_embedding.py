"""A UNet that embeds guidance is run once a step, with the embedding of diffusers' LCM pipeline."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("diffusers", reason="the build side needs synfer-rt[export]")
import diffusers
import torch
from torch import Tensor, nn

from synfer_rt.export.networks.guide import TextGuide
from synfer_rt.export.networks.modules import (
    Denoiser,
    GuidanceEmbedding,
)
from synfer_rt.export.networks.one_branch import GuidanceEmbeddingDenoiser
from tests.export.tiny_checkpoint import make_lcm

SCALES = torch.tensor([1.0, 2.5, 8.5])


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def by_diffusers(scales: Tensor, width: int) -> Tensor:
    """The embedding of the pipeline, which calls it with the scales less 1."""
    kind: Any = diffusers.LatentConsistencyModelPipeline
    return kind.get_guidance_scale_embedding(None, scales - 1, embedding_dim=width)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("models") / "lcm"
    make_lcm(directory)
    return directory / "unet"


@pytest.fixture
def unet(folder: Path) -> Any:
    return diffusers.UNet2DConditionModel.from_pretrained(folder).eval().requires_grad_(False)


@pytest.mark.parametrize("width", [8, 7, 256])
def test_the_embedding_is_that_of_diffusers(width: int) -> None:
    found = GuidanceEmbedding(width)(SCALES)
    torch.testing.assert_close(found, by_diffusers(SCALES, width), rtol=0, atol=1e-6)


def test_a_step_is_one_pass_with_the_prompt_and_the_scale(unet: Any, folder: Path) -> None:
    latents, text = drawn(3, 4, 8, 8), drawn(3, 2, 5, 16, seed=1)
    history, coefficients = drawn(3, 3, 4, 8, 8, seed=2), drawn(4, 5, seed=3)
    timestep = torch.tensor(759.0)
    module = GuidanceEmbeddingDenoiser(Denoiser(unet, ("text",)))
    given = latents, history, timestep, SCALES, coefficients
    with torch.no_grad():
        next_latents, next_history, prediction = module(*given, text)
        plain: Any = diffusers.UNet2DConditionModel.from_pretrained(folder).eval()
        embedded = by_diffusers(SCALES, plain.config.time_cond_proj_dim)
        wanted = plain(latents, 759, text[:, 1], timestep_cond=embedded).sample
        without = plain(latents, 759, text[:, 1]).sample
    assert (wanted - without).abs().amax((1, 2, 3)).min() > 1e-3
    torch.testing.assert_close(prediction, wanted, rtol=0, atol=1e-5)
    stack = torch.cat([latents[:, None], wanted[:, None], history], 1)
    rows = torch.einsum("rk,bkchw->brchw", coefficients, stack)
    torch.testing.assert_close(next_latents, rows[:, 0], rtol=0, atol=1e-4)
    torch.testing.assert_close(next_history, rows[:, 1:], rtol=0, atol=1e-4)


def test_without_a_scale_the_unet_is_read_at_that_of_the_pipeline(unet: Any) -> None:
    denoiser, x, t = Denoiser(unet, ("text",)), drawn(2, 4, 8, 8), torch.tensor(1.0)
    given = {"text": drawn(2, 5, 16, seed=1)}
    with torch.no_grad():
        found = denoiser.predict(x, t, given)
        at = {scale: denoiser.predict(x, t, given, torch.full((2,), scale)) for scale in (1.0, 8.5)}
    torch.testing.assert_close(found, at[8.5], rtol=0, atol=1e-6)
    assert (at[1.0] - at[8.5]).abs().max() > 1e-3


def test_a_text_guide_follows_the_gradient_at_each_samples_scale(unet: Any, folder: Path) -> None:
    class Loss(nn.Module):
        def forward(self, x0: Tensor, target: Tensor) -> Tensor:
            return (x0 * target[:, :1, None, None]).square().sum()

    latents, text, target = drawn(3, 4, 8, 8), drawn(3, 2, 5, 16, seed=1), drawn(3, 8, seed=2)
    clean, strength = torch.tensor([0.8, -0.6]), torch.tensor([0.1, 0.2, 0.3])
    guide = TextGuide(Denoiser(unet, ("text",)), Loss())
    moved = guide(latents, torch.tensor(300.0), clean, target, strength, SCALES, text)

    plain: Any = diffusers.UNet2DConditionModel.from_pretrained(folder).eval()
    prompt = text[:, 1].clone().requires_grad_()
    embedded = by_diffusers(SCALES, plain.config.time_cond_proj_dim)
    prediction = plain(latents, 300, prompt, timestep_cond=embedded).sample
    loss = Loss()(0.8 * latents - 0.6 * prediction, target)
    (gradient,) = torch.autograd.grad(loss, prompt)
    step = strength[:, None, None] * gradient / gradient.norm(dim=-1, keepdim=True)
    torch.testing.assert_close(moved[:, 0], text[:, 0], rtol=0, atol=0)
    torch.testing.assert_close(moved[:, 1], text[:, 1] - step, rtol=0, atol=1e-5)
