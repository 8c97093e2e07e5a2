#!/usr/bin/env bash
# Softmax of opset 11: until opset 12 it normalises over all axes from `axis` on together, and `axis`
# is 1 by default. OpenVINO 2026.4.1 and the reference evaluator of onnx 1.23.2 read it by the rule
# of opset 13, over that single axis; ONNX Runtime 1.32 follows the opset. LogSoftmax, and OpenVINO
# with opset 9, are right, which makes the difference hard to see. No error is raised. It hurts
# published networks of opset 11, as landmark heatmaps [batch, height, width] that sum to one.
set -euo pipefail
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
cd "$scratch"
python3 -m venv env
env/bin/pip install --quiet openvino==2026.4.1 onnxruntime==1.32.0 onnx==1.23.2 numpy
env/bin/python - <<'PYTHON'
import sys

import numpy as np
import onnx
import onnxruntime
import openvino
from onnx import parser
from onnx.reference import ReferenceEvaluator

print(f"openvino {openvino.__version__}, onnxruntime {onnxruntime.__version__}, onnx {onnx.__version__}")
x = np.random.default_rng(0).standard_normal((2, 5, 7), np.float32)


def sums(opset, operator, finish=""):
    """What one image's map sums to in each tool."""
    model = parser.parse_model(
        f'<ir_version: 7, opset_import: ["": {opset}]> g (float[B, 5, 7] x) => (float[B, 5, 7] y) '
        f"{{ s = {operator} <axis = 1> (x) y = {finish or 'Identity'} (s) }}"
    )
    onnx.checker.check_model(model, full_check=True)
    data = model.SerializeToString()
    core = openvino.Core()
    hints = {"INFERENCE_PRECISION_HINT": "f32"}
    request = core.compile_model(core.read_model(data), "CPU", hints).create_infer_request()
    found = {
        "onnxruntime": onnxruntime.InferenceSession(data).run(None, {"x": x})[0],
        "openvino": request.infer([x])[0],
        "onnx": ReferenceEvaluator(model).run(None, {"x": x})[0],
    }
    return {tool: round(float(y[0].sum()), 3) for tool, y in found.items()}


seen = True
for opset, operator, finish, wanted, openvinos in (
    (9, "Softmax", "", 1, 1),
    (11, "Softmax", "", 1, 7),
    (12, "Softmax", "", 1, 7),
    (13, "Softmax", "", 7, 7),
    (11, "LogSoftmax", "Exp", 1, 1),
):
    found = sums(opset, operator, finish)
    print(f"{operator} of opset {opset} over [5, 7] from axis 1: right {wanted}, {found}")
    seen = seen and found == {"onnxruntime": wanted, "openvino": openvinos, "onnx": 7}
sys.exit(0 if seen else "A tool computes otherwise now: update this finding.")
PYTHON
