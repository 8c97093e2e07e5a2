"""Hold an exported engine against PyTorch, at batches of 1 and 3."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from synfer_rt.errors import UserError

BATCHES = (1, 3)
TOLERANCES = {"fp32": 1e-4, "fp16": 2e-2}
"""Largest relative error that an engine may have, by the precision of its weights."""

Inputs = Callable[[int], Mapping[str, Tensor]]
"""Batch size -> example inputs by name, in the order of the forward's arguments."""


def max_relative_error(
    path: Path, forward: Callable[..., Tensor | tuple[Tensor, ...]], inputs: Inputs
) -> float:
    """The engine's largest error over BATCHES and outputs, relative to the output's largest value.

    The engine runs on ONNX Runtime's CPU provider, `forward` in PyTorch float32.
    """
    import onnxruntime

    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    errors = []
    for batch in BATCHES:
        given = inputs(batch)
        with torch.no_grad():
            wanted = forward(*given.values())
        found = session.run(None, {name: t.numpy() for name, t in given.items()})
        for out, ref in zip(found, wanted if isinstance(wanted, tuple) else (wanted,), strict=True):
            errors.append(_relative(np.asarray(out), ref.numpy()))
    return float(np.max(errors))  # unlike max(), not deaf to NaN


def check(engine: str, error: float, tolerance: float) -> None:
    """Raise UserError when `error` is above `tolerance` (or not a number)."""
    if not error <= tolerance:
        raise UserError(
            f"The engine {engine} differs from PyTorch by {error:.1e} of its largest value, more "
            f"than the tolerance {tolerance:.1e}; build with --precision fp32, or allow more with "
            "--tolerance."
        )


def _relative(found: np.ndarray, wanted: np.ndarray) -> float:
    if found.shape != wanted.shape:
        return float("inf")
    scale = np.abs(wanted).max(initial=0.0)
    return float(np.abs(found - wanted).max(initial=0.0) / (scale if scale > 0 else 1.0))
