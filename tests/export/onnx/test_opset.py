"""Old operators keep their meaning when a file is rewritten for later ones."""

from __future__ import annotations

import numpy as np
import onnxruntime
import pytest
from onnx import ModelProto, TensorProto, helper, numpy_helper

from synfer_rt.export.onnx.opset import MINIMUM, at_least_minimum, opset_of


def model(op: str, opset: int, scale: float, mode: str) -> ModelProto:
    scales = numpy_helper.from_array(np.array([1, 1, 1, scale], np.float32), "scales")
    graph = helper.make_graph(
        [helper.make_node(op, ["x", "scales"], ["y"], mode=mode)],
        "enlarge",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["B", 1, 1, 4])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [scales],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)


def run(network: ModelProto, x: np.ndarray) -> np.ndarray:
    session = onnxruntime.InferenceSession(
        network.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    return np.asarray(session.run(None, {"x": x})[0])


@pytest.mark.parametrize("scale", [2.0, 1.5])
@pytest.mark.parametrize("mode", ["linear", "nearest"])
@pytest.mark.parametrize(("op", "opset"), [("Upsample", 9), ("Resize", 10)])
def test_an_old_enlargement_samples_at_output_over_scale(
    op: str, opset: int, mode: str, scale: float
):
    """Before version 11, output pixel i lay at i / scale of the input, up to its last pixel."""
    row = np.array([0.0, 1.0, 5.0, 2.0], np.float32)
    points = np.arange(int(4 * scale)) / scale
    wanted = np.interp(points, np.arange(4), row) if mode == "linear" else row[points.astype(int)]
    rewritten = at_least_minimum(model(op, opset, scale, mode))
    assert opset_of(rewritten) == MINIMUM
    np.testing.assert_allclose(run(rewritten, row.reshape(1, 1, 1, 4)).ravel(), wanted, atol=1e-6)


def test_a_file_that_is_recent_enough_is_left_as_it_is():
    recent = model("Resize", 10, 2.0, "linear")
    recent.opset_import[0].version = MINIMUM
    assert at_least_minimum(recent) is recent
