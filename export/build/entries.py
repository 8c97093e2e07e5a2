"""A finished engine: its entry in the manifest, and the report on it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx

Entry = dict[str, Any]
"""The manifest's entry of an engine, a plan or a CUDA engine, with its `file` and `build_key`."""


@dataclass(frozen=True)
class Built:
    """A finished engine or plan: bytes of its files, largest relative error, seconds, peak bytes.

    `peak_bytes` is None if the system does not tell. A `reused` one was made by an earlier build:
    its seconds are 0 and its peak is None.
    """

    name: str
    bytes: int
    precision: str
    error: float | None
    seconds: float
    peak_bytes: int | None
    reused: bool = False


def finished(
    name: str, entry: Entry, bundle: Path, seconds: float | None, peak: int | None = None
) -> Built:
    """The report on an engine or plan with this manifest entry; `seconds` None if it is reused."""
    files = (bundle / entry["file"], bundle / f"{entry['file']}.data")
    size = sum(file.stat().st_size for file in files if file.is_file())
    error = (entry.get("parity") or {}).get("max_relative_error")
    return Built(name, size, entry["precision"], error, seconds or 0.0, peak, seconds is None)


def interface(path: Path) -> dict[str, Any]:
    """The opset, inputs and outputs of an engine file."""
    model = onnx.load(path, load_external_data=False)

    def tensors(values: Any) -> list[dict[str, Any]]:
        return [
            {
                "name": value.name,
                "dtype": np.dtype(
                    onnx.helper.tensor_dtype_to_np_dtype(value.type.tensor_type.elem_type)
                ).name,
                "shape": [d.dim_param or d.dim_value for d in value.type.tensor_type.shape.dim],
            }
            for value in values
        ]

    opset = next(entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx"))
    return {
        "opset": opset,
        "inputs": tensors(model.graph.input),
        "outputs": tensors(model.graph.output),
    }
