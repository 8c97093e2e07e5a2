"""Every tensor of a checkpoint's files, and its fingerprint in float16."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import onnx
from onnx import numpy_helper
from safetensors.numpy import load_file


def checkpoint_tensors(directory: Path) -> dict[str, dict[str, np.ndarray]]:
    """By file and name: all that safetensors hold, and the weights of ONNX networks."""
    tensors = {
        file.relative_to(directory).as_posix(): load_file(file)
        for file in sorted(directory.rglob("*.safetensors"))
    }
    for file in sorted(directory.rglob("*.onnx")):
        weights = {t.name: numpy_helper.to_array(t) for t in onnx.load(file).graph.initializer}
        tensors[file.relative_to(directory).as_posix()] = {
            name: array for name, array in weights.items() if array.dtype.kind == "f"
        }
    return tensors


def digest(array: np.ndarray) -> str:
    """The first half of the SHA-256 of shape and bytes; floats in float16."""
    if array.dtype.kind == "f":
        array = array.astype(np.float16)
    return hashlib.sha256(str(array.shape).encode() + array.tobytes()).hexdigest()[:32]
