"""Floating-point operations of an engine, counted on the nodes of its ONNX graph.

ONNX Runtime runs the graph once as it is written, without optimising it, and its profiler tells the
shapes that every node had. So dynamic shapes are exact, and the count needs no other package.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from synfer_rt.backends.parity import inputs
from synfer_rt.bench.systems import MODEL_STAGES
from synfer_rt.bundle import Bundle
from synfer_rt.bundle.engine_specs import DENOISER, denoises

_STAGES = {"conditioner": "condition", DENOISER: "denoise", "decoder": "decode"}
"""The stage of an engine, by the first part of its name."""
Shape = Sequence[int]
Shapes = Sequence[Shape]


def _conv(given: Shapes, made: Shapes) -> int:
    """Weights are [out, in / groups, kernel ...]: each output value is a product over all but out.

    https://onnx.ai/onnx/operators/onnx__Conv.html
    """
    return 2 * math.prod(made[0]) * math.prod(given[1][1:])


def _transposed_conv(given: Shapes, made: Shapes) -> int:
    """Weights are [in, out / groups, kernel ...]: each input value meets all but in.

    https://onnx.ai/onnx/operators/onnx__ConvTranspose.html
    """
    return 2 * math.prod(given[0]) * math.prod(given[1][1:])


def _matmul(given: Shapes, made: Shapes) -> int:
    return 2 * math.prod(made[0]) * given[0][-1]


def _gemm(given: Shapes, made: Shapes) -> int:
    """A is [M, K] or, transposed, [K, M]; the output is [M, N]."""
    return 2 * math.prod(given[0]) * made[0][1]


def _multi_head_attention(given: Shapes, made: Shapes) -> int:
    """Scores and their product with the values: query [B, S, D], key [B, T, D], value [B, T, V].

    Keys may also be [B, heads, T, D / heads], as a past holds them.
    """
    query, key = given[0], given[1]
    positions = key[2] if len(key) == 4 else key[1]
    return 2 * positions * (math.prod(query) + math.prod(made[0]))


_COUNTS: Mapping[str, Callable[[Shapes, Shapes], int]] = {
    "Conv": _conv,
    "ConvInteger": _conv,
    "ConvTranspose": _transposed_conv,
    "MatMul": _matmul,
    "MatMulInteger": _matmul,
    "Gemm": _gemm,
    "MultiHeadAttention": _multi_head_attention,
}


def of_node(operator: str, given: Shapes, made: Shapes) -> int:
    """The operations of one node from the shapes of its inputs and outputs.

    A multiplication and an addition are two. Counted are products of matrices and convolutions,
    which are nearly all the work of a network; any other operator counts 0.
    """
    count = _COUNTS.get(operator)
    return 0 if count is None else count(given, made)


def of_graph(file: Path, given: Mapping[str, np.ndarray]) -> int:
    """The operations of an ONNX file for these inputs, by name; it runs once on the CPU."""
    runtime: Any = import_module("onnxruntime")
    options = runtime.SessionOptions()
    options.log_severity_level = 3
    options.graph_optimization_level = runtime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.enable_profiling = True
    with TemporaryDirectory(prefix="synfer-rt-flops-") as folder:
        options.profile_file_prefix = str(Path(folder) / "profile")
        session = runtime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
        session.run(None, dict(given))
        events = json.loads(Path(session.end_profiling()).read_text())
    return sum(_of_event(event["args"]) for event in events if "args" in event)


def _of_event(about: Mapping[str, Any]) -> int:
    """The operations of an event of the profile; each shape is a dict from its type."""
    if "input_type_shape" not in about:
        return 0
    given, made = (
        [shape for tensor in about[key] for shape in tensor.values()]
        for key in ("input_type_shape", "output_type_shape")
    )
    return of_node(about["op_name"], given, made)


def of_engines(bundle: Bundle) -> dict[str, int]:
    """The operations of each engine that `sample` runs without guides, for one image.

    Those of an engine that denoises are of one step.
    """
    denoisers = [name for name in bundle.engines if denoises(name)]
    names = ("conditioner", *denoisers, "decoder", *bundle.annotators)
    return {
        name: of_graph(bundle.path / bundle.engines[name].file, inputs(bundle, name, 1))
        for name in names
    }


def of_stages(engines: Mapping[str, int], calls: Mapping[str, float]) -> dict[str, float] | None:
    """The operations of MODEL_STAGES for one image, from those of the engines.

    `calls` is how often each engine ran for an image. None if one of them was not counted.
    """
    stages: dict[str, float] = dict.fromkeys(MODEL_STAGES, 0.0)
    for name, count in calls.items():
        stage = _STAGES.get(name.partition(".")[0])
        if stage is not None:
            if name not in engines:
                return None
            stages[stage] += count * engines[name]
    return stages
