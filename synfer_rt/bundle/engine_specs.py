"""The engines of a bundle: the inputs and outputs of each (docs/architecture.md, Engines)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from synfer_rt.diffusion.solvers import HISTORY_SLOTS
from synfer_rt.vocabulary import label_schemes

BATCH = "B"
"""The name of the dynamic dimension in a tensor's shape."""
IMAGE_AXES, LATENT_AXES = ("H", "W"), ("h", "w")
"""The names of height and width in pixels and in latents, where they are dynamic."""
SPATIAL = {"images": IMAGE_AXES} | dict.fromkeys(
    (
        *("latents", "history", "next_latents", "next_history", "prediction", "features"),
        *("mean", "logvar"),
    ),
    LATENT_AXES,
)
"""The inputs and outputs that end in height and width, with the names of these."""
FERANNO = "feranno"
"""The engine of SynFER's annotator, which reads an expression off latents (arXiv 2410.09865)."""
DENOISER = "denoiser"
"""The denoiser that every bundle has: both guidance branches in one call."""
PROBABILITIES = "probabilities"
"""The output of an annotator; the outputs of several heads have their names after it."""
CONDITIONAL, DISTILLED = "denoiser.conditional", "denoiser.distilled"
"""The denoiser's conditional branch alone, and a student of the model that needs few steps and has
guidance folded into it."""
STORING, REUSING = "denoiser.storing", "denoiser.reusing"
"""The denoiser that also returns the features of its UNet's deep part, and the one that takes them
from an earlier step (arXiv 2312.00858)."""
FEATURES = "features"
"""These features [B, 2, c, h', w'], an output of the one and an input of the other."""
CACHING = frozenset({STORING, REUSING})
ONE_BRANCH = frozenset({CONDITIONAL, DISTILLED})
"""Engines that denoise without classifier-free guidance, from branch 1 of the conditioning."""
DENOISERS = frozenset({DENOISER, STORING, REUSING, *ONE_BRANCH})
REQUIRED_ENGINES = ("conditioner", DENOISER, "decoder")


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
    """A runtime's largest deviation from ONNX Runtime, relative to an engine's largest value.

    `version` is the runtime's. An error of None means that the runtime failed. `bfloat16` is the
    same measurement in bfloat16, None where it was not made.
    """

    version: str
    tolerance: float
    max_relative_error: float | None
    bfloat16: RuntimeParity | None = None

    @property
    def holds(self) -> bool:
        """Whether the deviation in float32 is within the tolerance, which rounding explains."""
        error = self.max_relative_error
        return error is not None and error <= self.tolerance

    @classmethod
    def from_manifest(cls, fields: Mapping[str, Any] | None) -> RuntimeParity | None:
        """An engine's `parity_openvino`; None where the manifest has none.

        Raises TypeError or ValueError for values that are not numbers.
        """
        if fields is None:
            return None
        error, bf16 = fields["max_relative_error"], fields.get("bf16")
        version = str(fields.get("version", ""))
        return cls(
            version,
            float(fields["tolerance"]),
            None if error is None else float(error),
            None if bf16 is None else cls.from_manifest({"version": version, **bf16}),
        )


@dataclass(frozen=True)
class Head:
    """One vote of an annotator: probabilities by class of `label_scheme`.

    `annotator` is its name among the votes, `output` that of the engine's output. `mapping` says
    what its classes are in the bundle's scheme, where their names do not.
    """

    annotator: str
    output: str
    label_scheme: str
    mapping: label_schemes.Mapped = field(default_factory=dict[str, Mapping[str, float]])

    @classmethod
    def all_from_manifest(cls, engine: str, fields: Mapping[str, Any]) -> tuple[Head, ...]:
        """The heads of an annotator's entry: of its `heads` by name, or the only one."""
        heads: Mapping[str, Any] | None = fields.get("heads")
        if heads is None:
            return (cls(engine, PROBABILITIES, fields["label_scheme"], _mapping(fields)),)
        return tuple(
            cls(f"{engine}.{name}", f"{PROBABILITIES}.{name}", head["label_scheme"], _mapping(head))
            for name, head in heads.items()
        )


def _mapping(fields: Mapping[str, Any]) -> label_schemes.Mapped:
    return {
        name: {to: float(weight) for to, weight in parts.items()}
        for name, parts in fields.get("mapping", {}).items()
    }


@dataclass(frozen=True)
class EngineSpec:
    """One engine: its ONNX file within the bundle, its interface and the precision of its weights.

    `label_scheme` is that of an annotator's probabilities, None for the other engines. `parity` is
    the error against PyTorch, measured when the engine was built. `parity_openvino` is OpenVINO's
    (backends/parity.py), None where it was not measured. `heads` are an annotator's votes, usually
    one; with several, `label_scheme` is that of the first.
    """

    name: str
    file: str
    precision: str
    opset: int
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    label_scheme: str | None = None
    parity: Mapping[str, Any] = field(default_factory=dict[str, Any])
    parity_openvino: RuntimeParity | None = None
    heads: tuple[Head, ...] = ()

    @property
    def dimensions(self) -> tuple[str, ...]:
        """What an annotator reads beside classes: valence, arousal, both or neither."""
        return tuple(t.name for t in self.outputs if t.name in label_schemes.DIMENSIONS)

    @classmethod
    def from_manifest(cls, name: str, fields: Mapping[str, Any]) -> EngineSpec:
        """The engine that an entry of the manifest's `engines` describes."""
        heads = Head.all_from_manifest(name, fields) if has_labels(name) else ()
        return cls(
            name,
            fields["file"],
            fields["precision"],
            fields["opset"],
            tensor_specs(fields["inputs"]),
            tensor_specs(fields["outputs"]),
            heads[0].label_scheme if heads else None,
            fields.get("parity") or {},
            RuntimeParity.from_manifest(fields.get("parity_openvino")),
            heads,
        )


Tensors = tuple[TensorSpec, ...]


def tensor_specs(entries: Sequence[Mapping[str, Any]]) -> Tensors:
    """The manifest's `inputs` or `outputs` of an engine."""
    return tuple(TensorSpec(t["name"], t["dtype"], tuple(t["shape"])) for t in entries)


def has_labels(engine: str) -> bool:
    """Whether the engine's outputs are probabilities of a label scheme of its own."""
    return engine == FERANNO or engine.startswith("classifier.")


def denoises(engine: str) -> bool:
    """Whether the engine computes a step of the denoising, the UNet and the solver's matrix."""
    return engine in DENOISERS


def mismatch(
    engines: Mapping[str, EngineSpec],
    latent: tuple[int | str, ...],
    image_size: tuple[int | str, ...],
    tokens: int,
    aus: int,
    classes: int,
    guidance_embedding: bool = False,
) -> str | None:
    """The first reason why the engines do not fit each other, or None.

    `latent` is one image's [C, h, w] and `image_size` its [H, W], names where they are dynamic.
    `tokens` is the length of a prompt, `aus` that of the AU vector (0 for a model without AUs), and
    `classes` that of a guide's target, a distribution over the bundle's own labels. With
    `guidance_embedding` the UNet takes the scale of guidance as an input and has no branches.
    """
    caching = CACHING if CACHING & engines.keys() else ()
    for name in (*REQUIRED_ENGINES, *caching):
        if name not in engines:
            return f"the engine {name} is missing"
    images = _f32("images", BATCH, 3, *image_size)
    for name, spec in engines.items():
        if name == "conditioner":
            inputs, outputs = _conditioner_inputs(tokens, aus), spec.outputs
        elif denoises(name):
            inputs, outputs = _denoising(name, engines, latent)
        elif name == "decoder":
            inputs, outputs = (_f32("latents", BATCH, *latent),), (images,)
        elif name == "encoder":
            inputs = (images,)
            outputs = (_f32("mean", BATCH, *latent), _f32("logvar", BATCH, *latent))
        elif has_labels(name):
            given = _f32("latents", BATCH, *latent) if name == FERANNO else images
            inputs, outputs = (given,), _said(spec)
        elif name in ("guide.text", "guide.text-latent"):
            inputs, outputs = _text_guide(latent, classes, engines["conditioner"].outputs)
            inputs += (_f32("guidance", BATCH),) if guidance_embedding else ()
        elif name == "guide.latent":
            inputs, outputs = _latent_guide(latent, classes)
        elif name == "au-reader":
            if not aus:
                return "au-reader reads AUs, but this model has none"
            inputs, outputs = (images,), (_f32("aus", BATCH, aus),)
        else:
            return f"unknown engine {name}"
        problem = difference(name, "input", spec.inputs, inputs)
        problem = problem or difference(name, "output", spec.outputs, outputs)
        if problem:
            return problem
    return None


def _said(spec: EngineSpec) -> Tensors:
    """The outputs of an annotator: each head's probabilities, and the dimensions that it reads."""
    heads = [
        _f32(head.output, BATCH, len(label_schemes.scheme(head.label_scheme)))
        for head in spec.heads
    ]
    dimensions = spec.dimensions if spec.name != FERANNO else ()
    return (*heads, *(_f32(name, BATCH) for name in dimensions))


def _f32(name: str, *shape: int | str) -> TensorSpec:
    return TensorSpec(name, "float32", shape)


def _conditioner_inputs(tokens: int, aus: int) -> Tensors:
    ids = TensorSpec("tokens", "int64", (BATCH, 2, tokens))
    return (ids, _f32("aus", BATCH, 2, aus), _f32("au_scale", BATCH)) if aus else (ids,)


def _denoiser(latent: tuple[int | str, ...], *, guided: bool) -> tuple[Tensors, Tensors]:
    return (
        _f32("latents", BATCH, *latent),
        _f32("history", BATCH, HISTORY_SLOTS, *latent),
        _f32("timestep"),
        *((_f32("guidance", BATCH),) if guided else ()),
        _f32("coefficients", HISTORY_SLOTS + 1, HISTORY_SLOTS + 2),
    ), (
        _f32("next_latents", BATCH, *latent),
        _f32("next_history", BATCH, HISTORY_SLOTS, *latent),
        _f32("prediction", BATCH, *latent),
    )


def _denoising(
    name: str, engines: Mapping[str, EngineSpec], latent: tuple[int | str, ...]
) -> tuple[Tensors, Tensors]:
    """The inputs and outputs of an engine that denoises, conditioning included."""
    inputs, outputs = _denoiser(latent, guided=name not in ONE_BRANCH)
    conditioning = engines["conditioner"].outputs
    if name == STORING:
        outputs += (_features(engines),)
    elif name == REUSING:  # its part of the UNet may not read all of the conditioning
        inputs += (_features(engines),)
        conditioning = tuple(t for t in conditioning if t in engines[name].inputs)
    return inputs + conditioning, outputs


def _features(engines: Mapping[str, EngineSpec]) -> TensorSpec:
    """The features as the engine that stores them has them, or as it should."""
    for tensor in engines[STORING].outputs:
        form = tensor.dtype, tensor.shape[:2], len(tensor.shape)
        if tensor.name == FEATURES and form == ("float32", (BATCH, 2), 5):
            return tensor
    return _f32(FEATURES, BATCH, 2, "c", *LATENT_AXES)


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
    """Factors of the predicted clean image, the target distribution, the guide's strength."""
    return _f32("clean", 2), _f32("target", BATCH, classes), _f32("strength", BATCH)


def difference(engine: str, side: str, found: Tensors, wanted: Tensors) -> str | None:
    """The first reason why an engine's inputs or outputs (`side`) are not those wanted, or None."""
    for tensor in wanted:
        if tensor not in found:
            return f"{engine} has no {side} {tensor}"
    for tensor in found:
        if tensor not in wanted:
            return f"{engine} has the unknown {side} {tensor.name}"
    return None
