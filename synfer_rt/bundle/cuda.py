"""CUDA engines: second graphs of engines, fused for NVIDIA GPUs, as bundle.json describes them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, TypeGuard

from synfer_rt.bundle.engine_specs import (
    BATCH,
    EngineSpec,
    Tensors,
    TensorSpec,
    denoises,
    difference,
    tensor_specs,
)

STEPS = "S"
"""The name of the dynamic dimension of tables that have a row for each step."""
SUFFIX = ".cuda.onnx"
PRECISIONS = ("fp16", "fp32")
TABLES = {"timestep": "timesteps", "coefficients": "coefficients", "clean": "cleans"}
"""The inputs that change from step to step, and their names as tables of all steps."""
STEP, NEXT_STEP = TensorSpec("step", "int64", ()), TensorSpec("next_step", "int64", ())


@dataclass(frozen=True)
class CudaSpec:
    """An engine's second graph, for ONNX Runtime's CUDA provider; its weights are the engine's.

    `precision` is what it computes in, "fp16" or "fp32", `nodes` the number of its nodes.
    `source_sha256` is that of the ONNX file that it was made from. `parity` is its error against
    that file, both on a CPU, measured when it was built. `inputs` and `outputs` are those of
    `cuda_interface`.
    """

    engine: str
    file: str
    precision: str
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    source_sha256: str
    nodes: int
    parity: Mapping[str, Any] = field(default_factory=dict[str, Any])


def cuda_file(spec: EngineSpec) -> str:
    """The name of the file of an engine's CUDA engine."""
    return spec.file.removesuffix(".onnx") + SUFFIX


def cuda_interface(spec: EngineSpec) -> tuple[Tensors, Tensors]:
    """The inputs and outputs of an engine's CUDA engine.

    They are the engine's, but whatever changes from step to step is a table of all steps (TABLES),
    of which `step` selects a row; a denoiser returns `next_step`, which is step + 1, and the
    decoder also `pixels` uint8 [B, H, W, 3] and `sound` bool [B] (data/pixels.py).
    """
    inputs = tuple(_as_table(tensor) for tensor in spec.inputs)
    if inputs != spec.inputs:
        inputs += (STEP,)
    outputs = spec.outputs
    if denoises(spec.name):
        outputs += (NEXT_STEP,)
    if spec.name == "decoder":
        for images in spec.outputs:
            batch, channels, size = images.shape[:1], images.shape[1:2], images.shape[2:]
            outputs += (TensorSpec("pixels", "uint8", (*batch, *size, *channels)),)
        outputs += (TensorSpec("sound", "bool", (BATCH,)),)
    return inputs, outputs


def keeps_interface(spec: EngineSpec) -> bool:
    """Whether an engine's CUDA engine has the same inputs and outputs."""
    return cuda_interface(spec) == (spec.inputs, spec.outputs)


def _as_table(tensor: TensorSpec) -> TensorSpec:
    if tensor.name not in TABLES:
        return tensor
    return TensorSpec(TABLES[tensor.name], tensor.dtype, (STEPS, *tensor.shape))


def read_cuda(
    section: Any, engines: Mapping[str, EngineSpec], files: Mapping[str, Any]
) -> dict[str, CudaSpec]:
    """The manifest's `cuda` by engine; `files` is the manifest's.

    Raises ValueError for the first fault, with a message that continues a sentence.
    """
    if not _is_object(section):
        raise ValueError("its CUDA engines are not an object")
    others = {spec.file for spec in engines.values()}
    found: dict[str, CudaSpec] = {}
    for name, fields in section.items():
        if name not in engines:
            raise ValueError(f"it has a CUDA engine for the unknown engine {name!r}")
        spec, subject = engines[name], f"its CUDA engine for {name}"
        made = _cuda(name, subject, fields)
        if made.file != cuda_file(spec) or made.file in others:
            raise ValueError(f"{subject} is {made.file}, not {cuda_file(spec)}")
        if made.file not in files:
            raise ValueError(f"{subject} is {made.file}, which has no hash")
        if spec.file in files and made.source_sha256 != files[spec.file]["sha256"]:
            raise ValueError(f"{subject} was made from another {spec.file}")
        inputs, outputs = cuda_interface(spec)
        problem = difference(subject, "input", made.inputs, inputs)
        problem = problem or difference(subject, "output", made.outputs, outputs)
        if problem:
            raise ValueError(problem)
        found[name] = made
    return found


def _cuda(name: str, subject: str, fields: Any) -> CudaSpec:
    if not _is_object(fields):
        raise ValueError(f"{subject} is not an object")
    texts: dict[str, str] = {}
    for key in ("file", "precision", "source_sha256"):
        text = fields.get(key)
        if not isinstance(text, str) or not text:
            raise ValueError(f"{subject} has no {key}")
        texts[key] = text
    if texts["precision"] not in PRECISIONS:
        raise ValueError(
            f"{subject} has the precision {texts['precision']!r}, not {' or '.join(PRECISIONS)}"
        )
    if not _is_object(parity := fields.get("parity")):
        raise ValueError(f"{subject} has no parity")
    wanted = {key: fields for key in ("inputs", "outputs", "nodes")}
    wanted |= {key: parity for key in ("tolerance", "max_relative_error", "batches")}
    for key, place in wanted.items():
        if key not in place:
            raise ValueError(f"{subject} has no {key}")
    return CudaSpec(
        engine=name,
        inputs=tensor_specs(fields["inputs"]),
        outputs=tensor_specs(fields["outputs"]),
        nodes=fields["nodes"],
        parity=parity,
        **texts,
    )


def _is_object(value: Any) -> TypeGuard[dict[str, Any]]:
    return isinstance(value, dict)
