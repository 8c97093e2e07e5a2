"""Stable Diffusion as OpenVINO GenAI runs it, on networks that optimum-intel converted."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

_SCHEDULERS = {"DDIMScheduler": "DDIM", "EulerDiscreteScheduler": "EULER_DISCRETE"}

TELLS = ("alike",)
"""What `load` tells, beside what all systems tell."""


def load(
    versions: Sequence[str],
    converted: str,
    threads: int,
    scheduler: Mapping[str, Any],
    **_: Any,
) -> Text2Image:
    """The pipeline of the converted networks in the directory `converted`.

    `scheduler` has the `name` of a class of diffusers and its `config`.
    """
    import openvino_genai  # pyright: ignore[reportMissingImports]

    genai: Any = openvino_genai
    pipeline = genai.Text2ImagePipeline(converted, "CPU", INFERENCE_NUM_THREADS=threads)
    kind = getattr(genai.Scheduler.Type, _SCHEDULERS[scheduler["name"]])
    file = Path("scheduler_config.json")  # in this process's own folder
    file.write_text(json.dumps(scheduler["config"]))
    pipeline.set_scheduler(genai.Scheduler.from_config(file, kind))
    return Text2Image(pipeline, ", ".join(f"{name} {version(name)}" for name in versions))


class Text2Image:
    """A pipeline that makes batches of images of one prompt each."""

    def __init__(self, pipeline: Any, runtime: str) -> None:
        import openvino

        hint: Any = openvino.Core().get_property("CPU", "INFERENCE_PRECISION_HINT")
        precision = hint.get_type_name()
        self._pipeline = pipeline
        self.ran = {
            "runtime": runtime,
            "precision": {"f32": "float32", "bf16": "bfloat16"}.get(precision, precision),
            "device": "cpu",
        }
        self.alike = 1
        self.notes = ["a batch has one prompt, so it is encoded once for all images of the batch"]

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
        """Write the images as `out`/<number>.png; returns seconds by stage.

        `start` is a .npy file of the noise that each image starts from, float32 [N, C, h, w].
        """
        from PIL import Image

        noise = np.load(start)
        stages = ("condition", "denoise", "decode", "write")
        seconds: dict[str, float] = dict.fromkeys(stages, 0.0)
        for first in range(0, len(prompts), batch):
            rows = noise[first : first + batch]
            given: dict[str, Any] = {
                "num_inference_steps": steps,
                "guidance_scale": guidance,
                "num_images_per_prompt": len(rows),
                "height": 8 * rows.shape[2],
                "width": 8 * rows.shape[3],
                "generator": _generator(rows),
            }
            if guidance > 1:
                given["negative_prompt"] = negative_prompts[first]
            began = time.perf_counter()
            images = np.array(self._pipeline.generate(prompts[first], **given).data)
            total = time.perf_counter() - began
            told = self._pipeline.get_performance_metrics()
            condition = sum(told.get_text_encoder_infer_duration().values()) / 1000
            decode = told.get_vae_decoder_infer_duration() / 1000
            seconds["condition"] += condition
            seconds["decode"] += decode
            seconds["denoise"] += total - condition - decode
            began = time.perf_counter()
            for number, image in enumerate(images, first):
                Image.fromarray(image).save(Path(out) / f"{number:08d}.png")
            seconds["write"] += time.perf_counter() - began
        return seconds


def _generator(noise: np.ndarray) -> Any:
    """A generator that gives this noise, [B, C, h, w], to whoever asks for a normal tensor."""
    import openvino
    import openvino_genai  # pyright: ignore[reportMissingImports]

    genai: Any = openvino_genai

    class Given(genai.Generator):
        def __init__(self) -> None:
            super().__init__()
            self._values = iter(noise.reshape(-1).tolist())

        def next(self) -> float:
            return next(self._values)

        def randn_tensor(self, shape: Any) -> Any:
            count = int(np.prod(list(shape)))
            drawn = np.array([next(self._values) for _ in range(count)], np.float32)
            return openvino.Tensor(drawn.reshape(list(shape)))

    return Given()
