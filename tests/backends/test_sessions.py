"""Sessions of ONNX Runtime compute what their file says."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper, parser

from synfer_rt.backends.sessions import open_session


def test_activations_stay_float_where_the_weights_alone_are_int8(tmp_path: Path) -> None:
    draws = np.random.default_rng(0)
    levels = draws.integers(-100, 101, (64, 32)).astype(np.int8)
    steps = (0.01 + 0.01 * draws.random(32)).astype(np.float32)
    model = parser.parse_model(
        '<ir_version: 8, opset_import: ["": 13]> g (float[B, 64] x) => (float[B, 32] y) '
        "{ w = DequantizeLinear <axis = 1> (levels, steps) y = MatMul (x, w) }"
    )
    for name, array in (("levels", levels), ("steps", steps)):
        model.graph.initializer.append(numpy_helper.from_array(array, name))
    onnx.save(model, tmp_path / "weight_only.onnx")
    x = draws.standard_normal((4, 64)).astype(np.float32)
    x[:, 0] *= 30
    session = open_session(tmp_path / "weight_only.onnx", "onnxruntime-cpu", 1)
    (found,) = session.run(None, {"x": x})
    wanted = x.astype(float) @ (levels * steps.astype(float))
    assert found == pytest.approx(wanted, abs=1e-5 * np.abs(wanted).max())
