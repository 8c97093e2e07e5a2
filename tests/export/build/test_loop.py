"""A whole run of the engines equals the plain PyTorch pipeline that the papers describe."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("diffusers", reason="the build side needs synfer-rt[export]")
import diffusers
import torch
import transformers

from synfer_rt.bundle import Bundle
from synfer_rt.diffusion.solvers import trajectory
from tests.export.decoupled import DecoupledUNet

STEPS = 6
PROMPTS = ["a photo of a woman with a happy face", "a portrait of an old man, long white hair"]
GUIDANCE = torch.tensor([2.0, 5.0])
AU_SCALE = torch.tensor([1.0, 0.6])
SCHEDULERS = {
    "ddim": diffusers.DDIMScheduler,
    "dpmpp-2m": diffusers.DPMSolverMultistepScheduler,
}


def aus() -> torch.Tensor:
    """[B, 2, A]; the unconditional branch has none."""
    vectors = torch.rand(2, 2, 41, generator=torch.Generator().manual_seed(3))
    vectors[:, 0] = 0
    return vectors


def start() -> torch.Tensor:
    return torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(4))


@torch.no_grad()
def plain_pytorch(checkpoint: Path, solver: str) -> np.ndarray:
    """Images [2, 3, 16, 16] by diffusers' scheduler, decoupled attention and outer guidance."""
    unet = DecoupledUNet(
        diffusers.UNet2DConditionModel.from_pretrained(checkpoint / "unet").eval(),
        checkpoint / "au_adapter.safetensors",
    )
    vae: Any = diffusers.AutoencoderKL.from_pretrained(checkpoint / "vae").eval()
    encoder = transformers.CLIPTextModel.from_pretrained(checkpoint / "text_encoder").eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(checkpoint / "tokenizer")

    def branch(texts: list[str], vectors: torch.Tensor) -> Callable[..., torch.Tensor]:
        ids = tokenizer(texts, padding="max_length", truncation=True, return_tensors="pt").input_ids
        encoded = encoder(ids)
        classes = None
        if unet.unet.config.class_embed_type:
            classes = torch.cat([encoded.pooler_output, AU_SCALE[:, None] * vectors], 1)
        text = encoded.last_hidden_state
        return lambda x, t: unet(x, t, text, vectors, AU_SCALE, classes)

    unconditional, conditional = branch(["", ""], aus()[:, 0]), branch(PROMPTS, aus()[:, 1])
    scheduler: Any = SCHEDULERS[solver].from_pretrained(checkpoint / "scheduler", clip_sample=False)
    scheduler.set_timesteps(STEPS)
    latents = start() * scheduler.init_noise_sigma
    for t in scheduler.timesteps:
        u, c = unconditional(latents, t), conditional(latents, t)
        guided = u + GUIDANCE[:, None, None, None] * (c - u)
        latents = scheduler.step(guided, t, latents).prev_sample
    shift = vae.config.shift_factor or 0
    images = vae.decode(latents / vae.config.scaling_factor + shift).sample
    return (images / 2 + 0.5).clamp(0, 1).numpy()


def engines(bundle: Bundle, engine: Callable, solver: str) -> np.ndarray:
    """The same images by the bundle's engines and the solver's matrices."""
    texts = [text for prompt in PROMPTS for text in ("", prompt)]
    tokens = bundle.tokenize(texts).reshape(2, 2, -1)
    conditioning = engine(bundle, "conditioner")(
        tokens=tokens, aus=aus().numpy(), au_scale=AU_SCALE.numpy()
    )
    way = trajectory(solver, bundle.schedule, STEPS, prediction_type=bundle.prediction_type)
    denoise = engine(bundle, "denoiser")
    latents = way.noise * start().numpy()
    history = np.zeros((2, 3, 4, 8, 8), np.float32)
    for timestep, coefficients in zip(way.timesteps, way.coefficients, strict=True):
        step = denoise(
            latents=latents,
            history=history,
            timestep=np.asarray(timestep),
            guidance=GUIDANCE.numpy(),
            coefficients=coefficients,
            **conditioning,
        )
        latents, history = step["next_latents"], step["next_history"]
    return engine(bundle, "decoder")(latents=latents)["images"]


@pytest.mark.parametrize("solver", SCHEDULERS)
@pytest.mark.parametrize("kind", ["mini", "sd"])
def test_the_engines_make_the_images_of_the_plain_pipeline(
    kind: str, solver: str, request: pytest.FixtureRequest, engine: Callable
) -> None:
    checkpoint = request.getfixturevalue(f"{kind}_checkpoint")
    bundle = request.getfixturevalue(f"{kind}_bundle")
    wanted, found = plain_pytorch(checkpoint, solver), engines(bundle, engine, solver)
    assert wanted.std() > 0.02  # not all clamped to black or white
    assert (np.abs(wanted - 0.5) < 0.499).mean() > 0.02
    np.testing.assert_allclose(found, wanted, atol=1e-3)
