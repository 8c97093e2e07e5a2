#!/usr/bin/env bash
# A square matrix that a network uses as it is and transposed (an autoencoder with tied weights, a
# gradient written out as a graph): OpenVINO 2026.4.1 on the CPU prepares the matrix for the first
# product and takes that for the second too, which is then computed with the wrong matrix, without
# an error. ONNX Runtime 1.32 and the plain arithmetic agree; a matrix that is not square is right.
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
from onnx import numpy_helper, parser

print(f"openvino {openvino.__version__}, onnxruntime {onnxruntime.__version__}")
draws = np.random.default_rng(0)
x = draws.standard_normal((3, 8)).astype(np.float32)


def errors(columns):
    """How far both runtimes are from x @ W @ W.T, relative to its largest value."""
    weight = draws.standard_normal((8, columns)).astype(np.float32)
    model = parser.parse_model("""<ir_version: 10, opset_import: ["": 21]>
    tied (float[B,8] x) => (float[B,8] y) {
      code = MatMul (x, W)
      T = Transpose <perm = [1, 0]> (W)
      y = MatMul (code, T)
    }""")
    model.graph.initializer.append(numpy_helper.from_array(weight, "W"))
    onnx.checker.check_model(model)
    data = model.SerializeToString()
    wanted = x @ weight @ weight.T
    session = onnxruntime.InferenceSession(data)
    core = openvino.Core()
    hints = {"INFERENCE_PRECISION_HINT": "f32"}
    request = core.compile_model(core.read_model(data), "CPU", hints).create_infer_request()
    found = session.run(None, {"x": x})[0], request.infer([x])[0]
    return [float(np.abs(y - wanted).max() / np.abs(wanted).max()) for y in found]


square, oblong = errors(8), errors(5)
print(f"8x8 matrix: ONNX Runtime is off by {square[0]:.1e}, OpenVINO by {square[1]:.1e}")
print(f"8x5 matrix: ONNX Runtime is off by {oblong[0]:.1e}, OpenVINO by {oblong[1]:.1e}")
seen = square[0] < 1e-5 and square[1] > 0.1 and max(oblong) < 1e-5
sys.exit(0 if seen else "OpenVINO computes otherwise now: update this finding.")
PYTHON
