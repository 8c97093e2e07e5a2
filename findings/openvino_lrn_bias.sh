#!/usr/bin/env bash
# LRN (local response normalisation) with a bias that is no whole number: OpenVINO 2026.4.1 on the
# CPU cuts its fraction off, 1.5 to 1 and 0.5 to 0, without an error. ONNX Runtime 1.32 and the
# formula of the specification, x / (bias + alpha / size * sum of squares) ** beta, agree. It hurts
# classifiers of AlexNet's and GoogLeNet's kind whose bias was tuned; 1 and 2 are right.
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

print(f"openvino {openvino.__version__}, onnxruntime {onnxruntime.__version__}")
x = 3 * np.random.default_rng(0).standard_normal((2, 8, 4, 4)).astype(np.float32)


def formula(bias):
    squares = np.pad(x**2, ((0, 0), (2, 2), (0, 0), (0, 0)))
    sums = sum(squares[:, i : i + 8] for i in range(5))
    return x / (bias + 0.3 / 5 * sums) ** 0.75


seen = True
for bias in (0.5, 1.0, 1.5, 2.0):
    model = parser.parse_model(f"""<ir_version: 10, opset_import: ["": 13]>
    g (float[B,8,4,4] x) => (float[B,8,4,4] y) {{
      y = LRN <size = 5, alpha = 0.3, beta = 0.75, bias = {bias}> (x)
    }}""")
    onnx.checker.check_model(model)
    data = model.SerializeToString()
    core = openvino.Core()
    hints = {"INFERENCE_PRECISION_HINT": "f32"}
    request = core.compile_model(core.read_model(data), "CPU", hints).create_infer_request()
    found = request.infer([x])[0]
    reference = onnxruntime.InferenceSession(data).run(None, {"x": x})[0]

    def off(y, wanted):
        return float(np.abs(y - wanted).max() / np.abs(y).max())

    ort, ov, cut = off(reference, formula(bias)), off(found, formula(bias)), off(found, formula(int(bias)))
    print(f"bias {bias}: ONNX Runtime is off by {ort:.1e}, OpenVINO by {ov:.1e}; from the formula with bias {int(bias)} by {cut:.1e}")
    seen = seen and ort < 1e-5 and cut < 1e-5 and (ov > 0.1) == (bias != int(bias))
sys.exit(0 if seen else "OpenVINO computes otherwise now: update this finding.")
PYTHON
