#!/usr/bin/env bash
# A network whose weights alone are int8, by DequantizeLinear in front of MatMul: ONNX Runtime 1.32
# turns that pair into MatMulNBits and rounds the activations to 8 bits, too, without a warning. The
# file says that they stay float32, and so they do at the optimization level "basic" or with the
# session's entry session.qdq_matmulnbits_accuracy_level = 1; the default is some 10,000 times less
# accurate. It hurts who compresses only the weights because a few activations are large, as in
# diffusion models, and who looks for the error in the weights.
set -euo pipefail
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
cd "$scratch"
python3 -m venv env
env/bin/pip install --quiet onnxruntime==1.32.0 onnx==1.23.2 numpy
env/bin/python - <<'PYTHON'
import sys

import numpy as np
import onnx
import onnxruntime
from onnx import numpy_helper, parser

print(f"onnxruntime {onnxruntime.__version__}")
draws = np.random.default_rng(0)
levels, steps = draws.integers(-100, 101, (320, 640)).astype(np.int8), np.float32(0.01) + draws.random(640, np.float32) / 100
x = draws.standard_normal((4, 320), np.float32)
x[:, 0] *= 30  # one large channel
wanted = x.astype(float) @ (levels * steps.astype(float))

model = parser.parse_model(
    '<ir_version: 8, opset_import: ["": 13]> g (float[B, 320] x) => (float[B, 640] y) '
    "{ w = DequantizeLinear <axis = 1> (levels, steps) y = MatMul (x, w) }"
)
model.graph.initializer.extend([numpy_helper.from_array(levels, "levels"), numpy_helper.from_array(steps, "steps")])
onnx.checker.check_model(model, full_check=True)


def run(basic=False, entry=None):
    """The largest error, relative to the largest value, and the operators that ran."""
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = "optimized.onnx"
    options.log_severity_level = 3  # optimized models should run where they were made
    if basic:
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
    if entry:
        options.add_session_config_entry("session.qdq_matmulnbits_accuracy_level", entry)
    providers = ["CPUExecutionProvider"]
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=providers)
    error = float(np.abs(session.run(None, {"x": x})[0] - wanted).max() / np.abs(wanted).max())
    return error, [node.op_type for node in onnx.load("optimized.onnx").graph.node]


runs = {"default": run(), "basic": run(basic=True), "accuracy level 1": run(entry="1")}
for name, (error, operators) in runs.items():
    print(f"{name}: {', '.join(operators)}, error {error:.1e}")
seen = runs["default"][1] == ["MatMulNBits"] and runs["default"][0] > 1e-3
seen = seen and max(runs["basic"][0], runs["accuracy level 1"][0]) < 1e-5
sys.exit(0 if seen else "ONNX Runtime computes otherwise now: update this finding.")
PYTHON
