"""Hold an exported engine against PyTorch, at two batches."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from synfer_rt.backends.openvino import read_model
from synfer_rt.errors import UserError

from .graphs import Inputs

_BATCHES = (1, 3)
_BATCHES_OF_LARGE_IMAGES = (1, 2)
_LARGE = 384 * 384
TOLERANCES = {"fp32": 1e-4, "fp16": 2e-2, "int8": 0.2}
"""Largest relative error that an engine may have, by the precision of its weights."""

Arrays = dict[str, np.ndarray]
Case = tuple[Arrays, tuple[np.ndarray, ...]]
"""Inputs by name, and what PyTorch makes of them."""


def batches(image_size: tuple[int, int]) -> tuple[int, int]:
    """The batches at which engines for images of `image_size` (H, W) are verified.

    On a CPU self-attention keeps a score for each pair of positions: 2.1 GB for an image of
    512x512 with guidance. A third such image would take more memory than everything else.
    """
    return _BATCHES if math.prod(image_size) <= _LARGE else _BATCHES_OF_LARGE_IMAGES


def references(
    forward: Callable[..., Tensor | tuple[Tensor, ...]],
    inputs: Inputs,
    batches: Sequence[int] = _BATCHES,
) -> list[Case]:
    """`forward` in PyTorch at each batch; it may leave memory before the engine enters it."""
    cases = []
    for batch in batches:
        given = inputs(batch)
        with torch.no_grad():
            wanted = forward(*given.values())
        outputs = wanted if isinstance(wanted, tuple) else (wanted,)
        arrays = {name: tensor.numpy() for name, tensor in given.items()}
        cases.append((arrays, tuple(output.numpy() for output in outputs)))
    return cases


def measured(path: Path, inputs: Iterable[Arrays]) -> list[Case]:
    """What the engine in `path` makes of `inputs` on ONNX Runtime: cases for another of its kind.

    An int8 engine is held against the float32 one that it was made of, on inputs that it really
    gets; on random ones, outside the ranges it was calibrated for, its error says nothing.
    """
    run = _onnxruntime(path)
    return [(given, tuple(run(given))) for given in inputs]


def max_relative_error(path: Path, cases: Sequence[Case], runtime: str = "onnxruntime") -> float:
    """The engine's largest error over `cases` and outputs, relative to the output's largest value.

    The engine runs on the CPU with "onnxruntime" or "openvino", both computing in float32.
    """
    run = _RUNTIMES[runtime](path)
    errors = [
        _relative(out, ref)
        for given, wanted in cases
        for out, ref in zip(run(given), wanted, strict=True)
    ]
    return float(np.max(errors))  # unlike max(), not deaf to NaN


def check(engine: str, error: float, tolerance: float, runtime: str = "onnxruntime") -> None:
    """Raise UserError when `error` is above `tolerance` (or not a number)."""
    if not error <= tolerance:
        where = "" if runtime == "onnxruntime" else f" on {runtime}"
        raise UserError(
            f"The engine {engine} differs from PyTorch by {error:.1e} of its largest value{where}, "
            f"more than the tolerance {tolerance:.1e}; build with --precision fp32, or allow more "
            "with --tolerance."
        )


def _onnxruntime(path: Path) -> Callable[[Arrays], list[np.ndarray]]:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.enable_cpu_mem_arena = False  # it would keep the largest batch's activations
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    return lambda given: [np.asarray(output) for output in session.run(None, given)]


def _openvino(path: Path) -> Callable[[Arrays], list[np.ndarray]]:
    import openvino

    hints = {"INFERENCE_PRECISION_HINT": "f32"}  # the runtime would choose bfloat16 by itself
    core = openvino.Core()
    request = core.compile_model(read_model(path, core), "CPU", hints).create_infer_request()
    return lambda given: [np.array(output) for output in request.infer(given).values()]


_RUNTIMES = {"onnxruntime": _onnxruntime, "openvino": _openvino}


def _relative(found: np.ndarray, wanted: np.ndarray) -> float:
    if found.shape != wanted.shape:
        return float("inf")
    scale = np.abs(wanted).max(initial=0.0)
    return float(np.abs(found - wanted).max(initial=0.0) / (scale if scale > 0 else 1.0))
