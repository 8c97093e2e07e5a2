"""The engines of a bundle: what each takes and gives (docs/architecture.md, Engines)."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from synfer_rt.diffusion.solvers import HISTORY_SLOTS
from synfer_rt.vocabulary import label_schemes

BATCH = "B"
"""The name of the dynamic dimension in a tensor's shape."""
IMAGE_AXES, LATENT_AXES = ("H", "W"), ("h", "w")
"""Those of height and width, where an engine's are free."""
SPATIAL = {"images": IMAGE_AXES} | dict.fromkeys(
    ("latents", "history", "next_latents", "next_history", "prediction", "mean", "logvar"),
    LATENT_AXES,
)
"""The inputs and outputs whose last two dimensions are these."""
REQUIRED_ENGINES = ("conditioner", "denoiser", "decoder")
PLAN_TARGETS = ("tensorrt-rtx", "tensorrt")
"""The libraries that engines are compiled for ahead of time."""


@dataclass(frozen=True)
class TensorSpec:
    """An engine's input or output; `shape` holds sizes, and names of dynamic dimensions."""

    name: str
    dtype: str
    shape: tuple[int | str, ...]

    def __str__(self) -> str:
        return f"{self.name} {self.dtype} {list(self.shape)}"


@dataclass(frozen=True)
class RuntimeParity:
    """How far a runtime was off from ONNX Runtime, relative to an engine's largest value.

    `version` is the runtime's; an error of None is a failure. `bfloat16` is the same where it
    computes the engine in bfloat16, None where that was not measured.
    """

    version: str
    tolerance: float
    max_relative_error: float | None
    bfloat16: RuntimeParity | None = None

    @property
    def holds(self) -> bool:
        """Whether rounding explains it."""
        error = self.max_relative_error
        fits = error is not None and error <= self.tolerance
        return fits and (self.bfloat16 is None or self.bfloat16.holds)


@dataclass(frozen=True)
class EngineSpec:
    """One engine: its ONNX file within the bundle, its interface and the precision of its weights.

    `label_scheme` is that of a classifier's or the annotator's outputs, None for the other engines;
    `parity` is the error against PyTorch that was measured when the engine was built,
    `parity_openvino` that of OpenVINO (parity.py), None where it was not measured.
    """

    name: str
    file: str
    precision: str
    opset: int
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    label_scheme: str | None = None
    parity: Mapping[str, Any] = field(default_factory=dict)
    parity_openvino: RuntimeParity | None = None


@dataclass(frozen=True)
class PlanSpec:
    """An engine compiled ahead of time for some GPUs.

    `target` is one of PLAN_TARGETS, `version` the library's that compiled it (no other loads it),
    `compute_capabilities` are like "sm89". `batches` are the smallest, the best and the largest
    number of images; `source_sha256` is that of the ONNX file that was compiled.
    """

    target: str
    engine: str
    file: str
    version: str
    compute_capabilities: tuple[str, ...]
    batches: tuple[int, int, int]
    precision: str
    source_sha256: str


Tensors = tuple[TensorSpec, ...]


def has_labels(engine: str) -> bool:
    """Whether the engine's outputs are probabilities of a label scheme of its own."""
    return engine == "annotator" or engine.startswith("classifier.")


def mismatch(
    engines: Mapping[str, EngineSpec],
    latent: tuple[int | str, ...],
    image_size: tuple[int | str, ...],
    tokens: int,
    aus: int,
    classes: int,
) -> str | None:
    """The first thing that keeps the engines from working together, or None.

    `latent` is one image's [C, h, w], `image_size` its [H, W] (names where they are free),
    `tokens` the length of a prompt, `aus` that of the AU vector, 0 for a model without AUs, and
    `classes` that of a target, a distribution over the bundle's own labels.
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
        elif has_labels(name):
            given = _f32("latents", BATCH, *latent) if name == "annotator" else images
            known = len(label_schemes.scheme(spec.label_scheme or ""))
            inputs, outputs = (given,), (_f32("probabilities", BATCH, known),)
        elif name in ("guide.text", "guide.text-latent"):
            inputs, outputs = _text_guide(latent, classes, engines["conditioner"].outputs)
        elif name == "guide.latent":
            inputs, outputs = _latent_guide(latent, classes)
        elif name == "au-reader":
            if not aus:
                return "au-reader reads AUs, of which this model has none"
            inputs, outputs = (images,), (_f32("aus", BATCH, aus),)
        else:
            return f"unknown engine {name}"
        problem = _differs(name, "input", spec.inputs, inputs)
        problem = problem or _differs(name, "output", spec.outputs, outputs)
        if problem:
            return problem
    return None


def read_plans(
    section: Any,
    engines: Mapping[str, EngineSpec],
    files: Mapping[str, Any],
    axes: Mapping[str, tuple[int, int, int]],
) -> dict[str, dict[str, PlanSpec]]:
    """The manifest's `plans` by target and engine; `files` is the manifest's.

    `axes` are the smallest, best and largest length of free heights and widths (Sizes.axes).

    Raises ValueError, in the middle of a sentence, for the first thing that is not as it must be.
    """
    if not isinstance(section, dict):
        raise ValueError("its plans are no object")
    plans: dict[str, dict[str, PlanSpec]] = {}
    for target, entries in section.items():
        if target not in PLAN_TARGETS:
            raise ValueError(f"it has plans for the unknown target {target!r}")
        if not isinstance(entries, dict):
            raise ValueError(f"its {target} plans are no object")
        for engine, fields in entries.items():
            if engine not in engines:
                raise ValueError(f"it has a {target} plan of the unknown engine {engine!r}")
            plan = _plan(target, engine, fields, engines[engine], axes)
            subject = f"its {target} plan of {engine}"
            if plan.file not in files:
                raise ValueError(f"{subject} is {plan.file}, of which there is no hash")
            source = engines[engine].file
            if source in files and plan.source_sha256 != files[source]["sha256"]:
                raise ValueError(f"{subject} was compiled from another {source}")
            plans.setdefault(target, {})[engine] = plan
    return plans


def _plan(
    target: str,
    engine: str,
    fields: Any,
    spec: EngineSpec,
    axes: Mapping[str, tuple[int, int, int]],
) -> PlanSpec:
    subject = f"its {target} plan of {engine}"
    if not isinstance(fields, dict):
        raise ValueError(f"{subject} is no object")
    texts = {}
    for name in ("file", "version", "precision", "source_sha256"):
        texts[name] = fields.get(name)
        if not isinstance(texts[name], str) or not texts[name]:
            raise ValueError(f"{subject} has no {name}")
    capabilities = fields.get("compute_capabilities")
    if (
        not isinstance(capabilities, list)
        or not capabilities
        or not all(isinstance(c, str) and re.fullmatch(r"sm\d{2,3}", c) for c in capabilities)
    ):
        raise ValueError(f"{subject} has compute capabilities {capabilities!r}, not such as sm89")
    profiles = fields.get("profiles")
    if not isinstance(profiles, dict):
        raise ValueError(f"{subject} has no profiles")
    return PlanSpec(
        target=target,
        engine=engine,
        compute_capabilities=tuple(capabilities),
        batches=_batches(subject, profiles, spec, axes),
        **texts,
    )


def _batches(
    subject: str,
    profiles: Mapping[str, Any],
    spec: EngineSpec,
    axes: Mapping[str, tuple[int, int, int]],
) -> tuple[int, int, int]:
    """The smallest, best and largest batch of a plan's profiles, which must fit the engine."""
    if set(profiles) != {tensor.name for tensor in spec.inputs}:
        names = ", ".join(sorted(tensor.name for tensor in spec.inputs))
        raise ValueError(f"{subject} has profiles of {', '.join(sorted(profiles))}, not of {names}")
    batches = set()
    for tensor in spec.inputs:
        profile = profiles[tensor.name]
        if not isinstance(profile, dict) or set(profile) != {"min", "opt", "max"}:
            raise ValueError(f"{subject} has no min, opt and max for {tensor.name}")
        sizes = []
        for i, key in enumerate(("min", "opt", "max")):
            shape = profile[key]
            wanted = [axes[str(size)][i] if size in axes else size for size in tensor.shape]
            if not isinstance(shape, list) or len(shape) != len(tensor.shape):
                raise ValueError(f"{subject} has the shape {shape!r} for {tensor}")
            for found, size in zip(shape, wanted, strict=True):
                if type(found) is not int or found < 1 or size not in (BATCH, found):
                    raise ValueError(f"{subject} has the shape {shape} for {tensor}")
            sizes += shape[:1] if tensor.shape[:1] == (BATCH,) else []
        if sizes:
            batches.add(tuple(sizes))
    if len(batches) != 1:
        raise ValueError(f"{subject} has profiles with different batches")
    smallest, best, largest = batches.pop()
    if not smallest <= best <= largest:
        raise ValueError(
            f"{subject} has batches {smallest}, {best}, {largest}, which do not rise from min over "
            "opt to max"
        )
    return smallest, best, largest


def _f32(name: str, *shape: int | str) -> TensorSpec:
    return TensorSpec(name, "float32", shape)


def _conditioner_inputs(tokens: int, aus: int) -> Tensors:
    ids = TensorSpec("tokens", "int64", (BATCH, 2, tokens))
    return (ids, _f32("aus", BATCH, 2, aus), _f32("au_scale", BATCH)) if aus else (ids,)


def _denoiser(latent: tuple[int | str, ...]) -> tuple[Tensors, Tensors]:
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


def _text_guide(
    latent: tuple[int | str, ...], classes: int, conditioning: Tensors
) -> tuple[Tensors, Tensors]:
    moved = (replace(part, name="guided_text") for part in conditioning if part.name == "text")
    return (
        _f32("latents", BATCH, *latent),
        _f32("timestep"),
        *_aim(classes),
        *conditioning,
    ), tuple(moved)


def _latent_guide(latent: tuple[int | str, ...], classes: int) -> tuple[Tensors, Tensors]:
    return (
        _f32("latents", BATCH, *latent),
        _f32("prediction", BATCH, *latent),
        _f32("next_latents", BATCH, *latent),
        _f32("next_history", BATCH, HISTORY_SLOTS, *latent),
        _f32("coefficients", HISTORY_SLOTS + 1, HISTORY_SLOTS + 2),
        *_aim(classes),
    ), (
        _f32("guided_latents", BATCH, *latent),
        _f32("guided_history", BATCH, HISTORY_SLOTS, *latent),
    )


def _aim(classes: int) -> Tensors:
    """How x0 is made of latents and prediction, where it is to go and how far."""
    return _f32("clean", 2), _f32("target", BATCH, classes), _f32("strength", BATCH)


def _differs(engine: str, side: str, found: Tensors, wanted: Tensors) -> str | None:
    for tensor in wanted:
        if tensor not in found:
            return f"{engine} has no {side} {tensor}"
    for tensor in found:
        if tensor not in wanted:
            return f"nothing is known of {engine}'s {side} {tensor.name}"
    return None
