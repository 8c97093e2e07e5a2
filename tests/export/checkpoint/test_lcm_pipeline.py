"""A bundle of a latent consistency model samples as diffusers' pipeline of such models does."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("diffusers", reason="the build side needs synfer-rt[export]")
import diffusers
import torch
from diffusers.schedulers import scheduling_lcm

from synfer_rt.bundle import Bundle, open_bundle
from synfer_rt.diffusion import noise
from synfer_rt.sampling.requests import Request
from synfer_rt.sampling.sampler import Sampler
from tests.conftest import Once, built
from tests.export.tiny_checkpoint import make_lcm

SEED = 11
PROMPTS = ["a photo of a woman with a happy face", "a portrait of an old man, long white hair"]


@pytest.fixture(scope="module")
def checkpoint(once: Once) -> Path:
    return once("checkpoints/lcm", make_lcm)


@pytest.fixture(scope="module")
def bundle(checkpoint: Path, once: Once) -> Bundle:
    return open_bundle(once("bundles/lcm", lambda out: built(checkpoint, out)))


def by_diffusers(checkpoint: Path, start: np.ndarray, steps: int, guidance: float) -> np.ndarray:
    """The pipeline's clean latents from `start`, with the noise of samples 0 and 1 in each step."""
    pipeline: Any = diffusers.LatentConsistencyModelPipeline.from_pretrained(
        checkpoint, safety_checker=None, feature_extractor=None, local_files_only=True
    )
    pipeline.set_progress_bar_config(disable=True)
    keys = [(SEED, index) for index in range(len(start))]
    drawn: Iterator[np.ndarray] = (
        noise.normals(keys, start.shape[1:], "step", step) for step in range(steps)
    )

    def fresh(*_: Any, **__: Any) -> torch.Tensor:
        return torch.from_numpy(next(drawn))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(scheduling_lcm, "randn_tensor", fresh)
        return pipeline(
            PROMPTS,
            num_inference_steps=steps,
            guidance_scale=guidance,
            latents=torch.from_numpy(start),
            output_type="latent",
        ).images.numpy()


@pytest.mark.parametrize(("steps", "guidance"), [(4, 8.5), (2, 1.0)])
@pytest.mark.slow
def test_its_latents_are_those_of_the_pipeline(
    bundle: Bundle, checkpoint: Path, steps: int, guidance: float
) -> None:
    requests = [
        Request(i, SEED, "happy", prompt, "", {}, guidance, 1.0, None)
        for i, prompt in enumerate(PROMPTS)
    ]
    way = bundle.trajectory(steps=steps)
    sampler = Sampler.of(bundle, "onnxruntime-cpu", threads=1)
    start = sampler.start(requests, way)
    wanted = by_diffusers(checkpoint, start, steps, guidance)
    found = sampler.denoised(requests, start, way)
    assert np.abs(found - wanted).max() < 1e-5 * np.abs(wanted).max()


@pytest.mark.slow
def test_the_bundle_says_how_it_is_sampled(bundle: Bundle, checkpoint: Path) -> None:
    assert bundle.guidance_embedding and bundle.manifest["guidance_embedding"] is True
    own = bundle.defaults
    assert (own.solver, own.steps, own.guidance) == ("lcm", 4, 8.5)
    assert "denoiser.conditional" not in bundle.engines
