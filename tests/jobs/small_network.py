"""A small network of images, for evaluations and core-sets."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from onnx import numpy_helper, parser


def network(file: Path, size: int, outputs: int, weight: np.ndarray | None = None) -> Path:
    """An ONNX network of one product with weights, by default drawn at random."""
    inputs = 3 * size * size
    if weight is None:
        weight = np.random.default_rng(len(file.stem)).normal(size=(inputs, outputs))
    made = parser.parse_model(
        f"""<ir_version: 8, opset_import: ["" : 17]>
        net (float[B,3,{size},{size}] images) => (float[B,{outputs}] scores) {{
          flat = Flatten (images)
          scores = MatMul (flat, weight)
        }}"""
    )
    made.graph.initializer.append(numpy_helper.from_array(weight.astype("f4"), "weight"))
    file.write_bytes(made.SerializeToString())
    return file
