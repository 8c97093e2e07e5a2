"""Stable Diffusion as optimum-intel and optimum-onnx run it: diffusers' pipeline on their networks.

The pipeline is called stage by stage, as diffusers documents it: prompts to embeddings, these to
latents, latents to images.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Mapping, Sequence
from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

_CLASSES = {
    "optimum-intel": ("optimum.intel", "OVStableDiffusionPipeline"),
    "optimum-onnx": ("optimum.onnxruntime", "ORTStableDiffusionPipeline"),
}

TELLS = ("alike",)
"""What `load` tells, beside what all systems tell."""


def load(
    library: str,
    versions: Sequence[str],
    checkpoint: str,
    converted: str,
    threads: int,
    scheduler: Mapping[str, Any],
    **_: Any,
) -> Pipeline:
    """The pipeline of the diffusers directory `checkpoint` on so many CPU threads.

    Its networks are converted into the directory `converted` unless they are there already.
    `scheduler` has the `name` of a class of diffusers and its `config`.
    """
    import diffusers
    import torch

    torch.set_num_threads(threads)
    module, name = _CLASSES[library]
    kind: Any = getattr(import_module(module), name)
    if not Path(converted).is_dir():
        converting = {"compile": False} if library == "optimum-intel" else {}
        partial = f"{converted}.partial"
        shutil.rmtree(partial, ignore_errors=True)
        exported = kind.from_pretrained(checkpoint, export=True, **converting)
        exported.save_pretrained(partial)
        if library == "optimum-intel":
            _save_tokenizer(exported.tokenizer, Path(partial, "tokenizer"))
        Path(partial).rename(converted)
    pipeline = kind.from_pretrained(converted, **_running(library, threads))
    pipeline.scheduler = getattr(diffusers, scheduler["name"]).from_config(scheduler["config"])
    pipeline.set_progress_bar_config(disable=True)
    runtime = ", ".join(f"{package} {version(package)}" for package in versions)
    return Pipeline(pipeline, runtime, _precision(library, pipeline))


def _save_tokenizer(tokenizer: Any, folder: Path) -> None:
    """Write the tokenizer as OpenVINO GenAI reads it, beside transformers' own files."""
    import openvino
    import openvino_tokenizers  # pyright: ignore[reportMissingImports]

    converter: Any = openvino_tokenizers
    models = converter.convert_tokenizer(tokenizer, with_detokenizer=True)
    for model, name in zip(models, ("tokenizer", "detokenizer"), strict=True):
        openvino.save_model(model, folder / f"openvino_{name}.xml")


def _running(library: str, threads: int) -> dict[str, Any]:
    if library == "optimum-intel":
        return {"ov_config": {"INFERENCE_NUM_THREADS": str(threads)}}
    import onnxruntime

    options: Any = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    return {"session_options": options}


def _precision(library: str, pipeline: Any) -> str:
    if library == "optimum-onnx":
        return "float32"
    pipeline.unet.compile()
    hint = pipeline.unet.request.get_property("INFERENCE_PRECISION_HINT")
    name = str(hint.get_type_name())
    return {"f32": "float32", "bf16": "bfloat16", "f16": "float16"}.get(name, name)


class Pipeline:
    """A pipeline that makes batches of images."""

    def __init__(self, pipeline: Any, runtime: str, precision: str) -> None:
        self._pipeline = pipeline
        self.ran = {"runtime": runtime, "precision": precision, "device": "cpu"}
        self.notes: list[str] = []
        self.alike = None

    def run(
        self,
        prompts: Sequence[str],
        negative_prompts: Sequence[str],
        start: str,
        batch: int,
        steps: int,
        guidance: float,
        out: str,
        **_: Any,
    ) -> dict[str, float]:
        """Write an image of each prompt as `out`/<number>.png; returns seconds by stage.

        `start` is a .npy file of the noise that each image starts from, float32 [N, C, h, w].
        """
        noise = np.load(start)
        stages = ("condition", "denoise", "decode", "write")
        seconds: dict[str, float] = dict.fromkeys(stages, 0.0)
        for first in range(0, len(prompts), batch):
            rows = slice(first, first + batch)
            images = self._batch(
                *(list(prompts[rows]), list(negative_prompts[rows]), noise[rows]),
                *(steps, guidance, seconds),
            )
            began = time.perf_counter()
            for number, image in enumerate(images, first):
                image.save(Path(out) / f"{number:08d}.png")
            seconds["write"] += time.perf_counter() - began
        return seconds

    def _batch(
        self,
        prompts: list[str],
        negative_prompts: list[str],
        noise: np.ndarray,
        steps: int,
        guidance: float,
        seconds: dict[str, float],
    ) -> list[Any]:
        import torch

        pipeline = self._pipeline
        times = [time.perf_counter()]
        with torch.inference_mode():
            guided = guidance > 1
            texts = pipeline.encode_prompt(
                prompts, pipeline.device, 1, guided, negative_prompt=negative_prompts
            )
            times.append(time.perf_counter())
            latents = pipeline(
                prompt_embeds=texts[0],
                negative_prompt_embeds=texts[1],
                latents=torch.from_numpy(noise),
                height=8 * noise.shape[2],
                width=8 * noise.shape[3],
                num_inference_steps=steps,
                guidance_scale=guidance,
                output_type="latent",
            ).images
            times.append(time.perf_counter())
            scaled = torch.as_tensor(latents) / pipeline.vae.config.scaling_factor
            decoded = torch.as_tensor(pipeline.vae.decode(scaled, return_dict=False)[0])
            images = pipeline.image_processor.postprocess(decoded, output_type="pil")
            times.append(time.perf_counter())
        for i, stage in enumerate(("condition", "denoise", "decode")):
            seconds[stage] += times[i + 1] - times[i]
        return images
