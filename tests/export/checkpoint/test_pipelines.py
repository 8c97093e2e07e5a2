"""A sample through the bundle is what diffusers' own pipeline makes of the same checkpoint."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("diffusers", reason="the build side needs synfer-rt[export]")
import diffusers
import torch

from synfer_rt.backends import to_numpy
from synfer_rt.bundle import Bundle
from synfer_rt.diffusion import noise
from synfer_rt.diffusion.solvers import trajectory
from synfer_rt.export.build.one_engine import Source
from synfer_rt.export.build.whole_bundle import build_bundle
from synfer_rt.export.files.lora.merge import Lora
from synfer_rt.sampling.requests import Request
from synfer_rt.sampling.sampler import Sampler
from synfer_rt.vocabulary import facs
from tests.export.decoupled import Decoupled, fineface, synfer
from tests.export.tiny_checkpoint import (
    make_sd,
    make_sd2,
    save_adapter,
    save_fineface,
    save_lora,
)

SEED, STEPS, GUIDANCE, AU_SCALE = 11, 6, 3.0, 0.8
PROMPTS = ["a photo of a woman with a happy face", "a portrait of an old man, long white hair"]
AUS = [{"AU6": 0.7, "AU12": 1.0, "AU25": 0.4}, {"AU1": 0.9, "AU4": 0.2, "AU15": 0.6}]
SCHEDULERS: dict[str, tuple[Any, dict[str, Any]]] = {
    "ddim": (diffusers.DDIMScheduler, {"clip_sample": False}),
    "dpmpp-2m": (diffusers.DPMSolverMultistepScheduler, {}),
}


@dataclass(frozen=True)
class Model:
    """A checkpoint, the files that are given beside it, and how diffusers is to read those."""

    directory: Path
    au_adapter: Path | None = None
    loras: tuple[Lora, ...] = ()
    resolution: tuple[int, int] | None = None
    apply: Callable[[Any], Decoupled] | None = None


def _four_tokens(directory: Path) -> Model:
    """Four tokens with a norm, at another resolution than the checkpoint's."""
    make_sd(directory, adapter=False)
    path = directory.with_suffix(".safetensors")
    save_adapter(_unet(directory), path, tokens=4, norm=True)
    return Model(directory, path, resolution=(24, 16), apply=lambda unet: synfer(unet, path))


def _sd21(directory: Path) -> Model:
    make_sd2(directory)
    return Model(directory)


def _sd21_fineface(directory: Path) -> Model:
    """The adapter with its own LoRA, and a second LoRA at a scale of its own."""
    make_sd2(directory, "epsilon")
    adapter, other = directory.with_suffix(".fineface"), directory.with_suffix(".lora")
    save_fineface(_unet(directory), adapter)
    lora = Lora(save_lora(other, unet=_unet(directory)), 0.5)
    return Model(directory, adapter, (lora,), apply=lambda unet: fineface(unet, adapter))


def _unet(directory: Path) -> Any:
    return diffusers.UNet2DConditionModel.from_pretrained(directory / "unet")


OWN = {"four tokens": _four_tokens, "sd 2.1, v": _sd21, "fineface and lora": _sd21_fineface}
SHARED = {"sd 1.5, no adapter": "plain", "synfer": "sd"}
"""Models that other tests build too, by the prefix of their fixtures."""

LONG = {"four tokens", "sd 2.1, v", "fineface and lora"}
"""Models that take long to build, left to `-m slow`."""


def _own() -> list[Any]:
    return [pytest.param(name, marks=[pytest.mark.slow] * (name in LONG)) for name in OWN]


@pytest.fixture(scope="module", params=[*SHARED, *_own()])
def kind(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(scope="module")
def model(
    kind: str, request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Model:
    if kind in OWN:
        return OWN[kind](tmp_path_factory.mktemp("models") / "checkpoint")
    directory = request.getfixturevalue(f"{SHARED[kind]}_checkpoint")
    adapter = directory / "au_adapter.safetensors"
    apply = (lambda unet: synfer(unet, adapter)) if adapter.exists() else None
    return Model(directory, apply=apply)


@pytest.fixture(scope="module")
def sampler(
    kind: str,
    model: Model,
    request: pytest.FixtureRequest,
    tmp_path_factory: pytest.TempPathFactory,
) -> Sampler:
    if kind in SHARED:
        bundle = request.getfixturevalue(f"{SHARED[kind]}_bundle")
    else:
        source = Source(
            model.directory, model.au_adapter, loras=model.loras, resolution=model.resolution
        )
        bundle = build_bundle(source, tmp_path_factory.mktemp("bundles") / "bundle")
    return Sampler.of(bundle, "onnxruntime-cpu", threads=1)


def requests(bundle: Bundle) -> list[Request]:
    with_aus = bool(bundle.au_names)
    return [
        Request(i, SEED, "happy", prompt, "blurry", aus, GUIDANCE, AU_SCALE, None)
        for i, (prompt, aus) in enumerate(zip(PROMPTS, AUS if with_aus else [{}, {}], strict=True))
    ]


def simpler(model: Model) -> list[Model]:
    """The model without its adapter, and without its LoRAs, where it has them."""
    models = []
    if model.apply is not None:
        models.append(replace(model, au_adapter=None, apply=None))
    if model.loras:
        models.append(replace(model, loras=()))
    return models


def by_diffusers(model: Model, bundle: Bundle, solver: str) -> np.ndarray:
    """Images [2, 3, H, W] of StableDiffusionPipeline itself, adapters applied by their formula."""
    pipeline: Any = diffusers.StableDiffusionPipeline.from_pretrained(
        model.directory, safety_checker=None, feature_extractor=None, local_files_only=True
    )
    pipeline.set_progress_bar_config(disable=True)
    kind, options = SCHEDULERS[solver]
    pipeline.scheduler = kind.from_config(pipeline.scheduler.config, **options)
    given = [(lora.path, lora.scale) for lora in model.loras]
    if model.au_adapter is not None and model.au_adapter.is_dir():
        given.append((model.au_adapter / "pytorch_lora_weights.safetensors", 1.0))
    for i, (path, _) in enumerate(given):
        pipeline.load_lora_weights(path.parent, weight_name=path.name, adapter_name=f"lora{i}")
    if given:
        pipeline.set_adapters([f"lora{i}" for i in range(len(given))], [s for _, s in given])
    if model.apply is not None:
        vectors = torch.from_numpy(np.stack([facs.au_vector(a, bundle.au_names) for a in AUS]))
        aus = torch.cat([torch.zeros_like(vectors), vectors])
        model.apply(pipeline.unet).condition(aus, torch.full((4,), AU_SCALE))
    height, width = bundle.image_size
    latents = np.stack([noise.normal(SEED, i, bundle.latent.shape) for i in range(2)])
    return pipeline(
        PROMPTS,
        height,
        width,
        num_inference_steps=STEPS,
        guidance_scale=GUIDANCE,
        negative_prompt=["blurry", "blurry"],
        latents=torch.from_numpy(latents),
        output_type="np",
    ).images.transpose(0, 3, 1, 2)


@pytest.mark.parametrize("solver", SCHEDULERS)
def test_the_bundle_samples_what_diffusers_pipeline_samples(
    model: Model, sampler: Sampler, solver: str
) -> None:
    bundle = sampler.bundle
    way = trajectory(solver, bundle.schedule, STEPS, prediction_type=bundle.prediction_type)
    wanted = by_diffusers(model, bundle, solver)
    assert wanted.shape == (2, 3, *(model.resolution or (16, 16)))
    assert wanted.std() > 0.02 and (np.abs(wanted - 0.5) < 0.499).mean() > 0.1  # not all clamped
    for without in simpler(model):  # what both sides ignored would compare as equal
        assert np.abs(wanted - by_diffusers(without, bundle, solver)).max() > 5e-3

    asked = requests(bundle)
    latents: Any = sampler.start(asked, way)
    guidance = np.full(2, GUIDANCE, np.float32)
    for step in sampler.denoise(latents, sampler.condition(asked), guidance, way):
        latents = step
    np.testing.assert_allclose(sampler.decode(to_numpy(latents)), wanted, atol=1e-3)

    finished = np.stack([sample.image for sample in sampler.sample(asked, way, batch=2)])
    apart = finished - 255 * wanted.transpose(0, 2, 3, 1)
    assert np.abs(apart).max() <= 0.5 + 255 * 1e-3
