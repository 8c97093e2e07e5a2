"""Compare an exported engine with PyTorch, at two batches."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from synfer_rt.backends.parity import LARGE
from synfer_rt.backends.sessions import FLOAT_ACTIVATIONS
from synfer_rt.bundle.sizes import Size
from synfer_rt.errors import UserError
from synfer_rt.export.graphs.engine_graphs import Inputs

_BATCHES = (1, 3)
_BATCHES_OF_LARGE_IMAGES = (1, 2)
TOLERANCES = {"fp32": 1e-4, "fp16": 2e-2, "int8": 0.2}
"""Largest relative error that an engine may have, by the precision of its weights."""

Arrays = dict[str, np.ndarray]
Case = tuple[Arrays, tuple[np.ndarray, ...]]
"""Inputs by name, and the outputs of PyTorch."""


def batches(image_size: tuple[int, int]) -> tuple[int, int]:
    """The batches at which engines for images of `image_size` (H, W) are compared with PyTorch."""
    return _BATCHES if math.prod(image_size) <= LARGE else _BATCHES_OF_LARGE_IMAGES


def references(
    forward: Callable[..., Tensor | tuple[Tensor, ...]],
    inputs: Inputs,
    batches: Sequence[int] = _BATCHES,
    other: Size | None = None,
) -> list[Case]:
    """Outputs of `forward` in PyTorch at each batch, and at the size `other` where sizes are free.

    The module can then leave memory before the engine is loaded.
    """
    cases = []
    examples = [inputs(batch) for batch in batches]
    for given in examples if other is None else [*examples, inputs(1, other)]:
        with torch.no_grad():
            wanted = forward(*given.values())
        outputs = wanted if isinstance(wanted, tuple) else (wanted,)
        arrays = {name: tensor.numpy() for name, tensor in given.items()}
        cases.append((arrays, tuple(output.numpy() for output in outputs)))
    return cases


def measured(path: Path, inputs: Iterable[Arrays]) -> list[Case]:
    """Outputs of the engine in `path` for `inputs`, on ONNX Runtime: cases for its int8 engine.

    An int8 engine is compared with the float32 engine that it was quantized from, on inputs as they
    occur in sampling; on random inputs, outside its calibrated ranges, its error means nothing.
    """
    run = _onnxruntime(path)
    return [(given, tuple(run(given))) for given in inputs]


def max_relative_error(path: Path, cases: Sequence[Case]) -> float:
    """The engine's largest error over `cases` and outputs, relative to the output's largest value.

    The engine runs on ONNX Runtime on the CPU.
    """
    run = _onnxruntime(path)
    errors = [
        _relative(out, ref)
        for given, wanted in cases
        for out, ref in zip(run(given), wanted, strict=True)
    ]
    return float(np.max(errors))  # unlike max(), it returns NaN if there is one


def check(engine: str, error: float, tolerance: float) -> None:
    """Raise UserError if `error` is above `tolerance`, or NaN."""
    if not error <= tolerance:
        raise UserError(
            f"The engine {engine} differs from PyTorch by {error:.1e} of its largest value, more "
            f'than the tolerance {tolerance:.1e}; build with `precision="fp32"`, or allow more '
            "with `tolerance`."
        )


def _onnxruntime(path: Path) -> Callable[[Arrays], list[np.ndarray]]:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.enable_cpu_mem_arena = False  # it would keep the largest batch's activations
    options.add_session_config_entry(*FLOAT_ACTIVATIONS)
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    read = [node.name for node in session.get_inputs()]
    return lambda given: [
        np.asarray(output) for output in session.run(None, {name: given[name] for name in read})
    ]


def _relative(found: np.ndarray, wanted: np.ndarray) -> float:
    if found.shape != wanted.shape:
        return float("inf")
    scale = np.abs(wanted).max(initial=0.0)
    return float(np.abs(found - wanted).max(initial=0.0) / (scale if scale > 0 else 1.0))
