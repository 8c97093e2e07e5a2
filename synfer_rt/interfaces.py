"""The engines of a bundle: what each takes and gives (docs/architecture.md, Engines)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from synfer_rt import labels
from synfer_rt.solvers import HISTORY_SLOTS

BATCH = "B"
"""The name of the dynamic dimension in a tensor's shape."""
REQUIRED_ENGINES = ("conditioner", "denoiser", "decoder")


@dataclass(frozen=True)
class TensorSpec:
    """An engine's input or output; `shape` holds sizes and, for the batch, BATCH."""

    name: str
    dtype: str
    shape: tuple[int | str, ...]

    def __str__(self) -> str:
        return f"{self.name} {self.dtype} {list(self.shape)}"


@dataclass(frozen=True)
class EngineSpec:
    """One engine: its ONNX file within the bundle, its interface and the precision of its weights.

    `label_scheme` is that of a classifier's outputs, None for the other engines; `parity` is the
    error against PyTorch that was measured when the engine was built.
    """

    name: str
    file: str
    precision: str
    opset: int
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    label_scheme: str | None = None
    parity: Mapping[str, Any] = field(default_factory=dict)


Tensors = tuple[TensorSpec, ...]


def mismatch(
    engines: Mapping[str, EngineSpec],
    latent: tuple[int, int, int],
    image_size: tuple[int, int],
    tokens: int,
    aus: int,
) -> str | None:
    """The first thing that keeps the engines from working together, or None.

    `latent` is one image's [C, h, w], `image_size` its [H, W], `tokens` the length of a prompt and
    `aus` that of the AU vector, 0 for a model without AUs.
    """
    for name in REQUIRED_ENGINES:
        if name not in engines:
            return f"the engine {name} is missing"
    images = _f32("images", BATCH, 3, *image_size)
    for name, spec in engines.items():
        if name == "conditioner":
            inputs, outputs = _conditioner_inputs(tokens, aus), spec.outputs
        elif name == "denoiser":
            inputs, outputs = _denoiser(latent)
            inputs += engines["conditioner"].outputs
        elif name == "decoder":
            inputs, outputs = (_f32("latents", BATCH, *latent),), (images,)
        elif name == "encoder":
            inputs = (images,)
            outputs = (_f32("mean", BATCH, *latent), _f32("logvar", BATCH, *latent))
        elif name.startswith("classifier."):
            classes = labels.scheme(spec.label_scheme or "")
            inputs, outputs = (images,), (_f32("probabilities", BATCH, len(classes)),)
        else:
            return f"unknown engine {name}"
        problem = _differs(name, "input", spec.inputs, inputs)
        problem = problem or _differs(name, "output", spec.outputs, outputs)
        if problem:
            return problem
    return None


def _f32(name: str, *shape: int | str) -> TensorSpec:
    return TensorSpec(name, "float32", shape)


def _conditioner_inputs(tokens: int, aus: int) -> Tensors:
    ids = TensorSpec("tokens", "int64", (BATCH, 2, tokens))
    return (ids, _f32("aus", BATCH, 2, aus), _f32("au_scale", BATCH)) if aus else (ids,)


def _denoiser(latent: tuple[int, int, int]) -> tuple[Tensors, Tensors]:
    return (
        _f32("latents", BATCH, *latent),
        _f32("history", BATCH, HISTORY_SLOTS, *latent),
        _f32("timestep"),
        _f32("guidance", BATCH),
        _f32("coefficients", HISTORY_SLOTS + 1, HISTORY_SLOTS + 2),
    ), (
        _f32("next_latents", BATCH, *latent),
        _f32("next_history", BATCH, HISTORY_SLOTS, *latent),
        _f32("prediction", BATCH, *latent),
    )


def _differs(engine: str, side: str, found: Tensors, wanted: Tensors) -> str | None:
    for tensor in wanted:
        if tensor not in found:
            return f"{engine} has no {side} {tensor}"
    for tensor in found:
        if tensor not in wanted:
            return f"nothing is known of {engine}'s {side} {tensor.name}"
    return None
