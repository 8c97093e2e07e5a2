#!/usr/bin/env bash
# PRelu whose slope is a vector: by the specification it belongs to the last axis, as in channels-last
# images and in tokens [batch, tokens, width]. OpenVINO 2026.4.1 lays it along axis 1 if that axis has
# the same length, without an error, so a network exported at one size of image or number of tokens is
# right and at another wrong. ONNX Runtime 1.32 agrees with the formula at each. It hurts face
# networks, whose activation is PRelu, converted from channels-last frameworks.
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
slope = draws.random(32, np.float32)

seen = True
for opset in (9, 16):
    for shape in ((2, 16, 32), (2, 32, 32), (2, 28, 28, 32), (2, 32, 28, 32)):
        sizes = ", ".join(map(str, shape))
        model = parser.parse_model(
            f'<ir_version: 8, opset_import: ["": {opset}]> '
            f"g (float[{sizes}] x) => (float[{sizes}] y) {{ y = PRelu (x, slope) }}"
        )
        model.graph.initializer.append(numpy_helper.from_array(slope, "slope"))
        onnx.checker.check_model(model, full_check=True)
        data = model.SerializeToString()
        x = draws.standard_normal(shape, np.float32)
        wanted = np.where(x < 0, slope * x, x)
        reference = onnxruntime.InferenceSession(data).run(None, {"x": x})[0]
        core = openvino.Core()
        hints = {"INFERENCE_PRECISION_HINT": "f32"}
        request = core.compile_model(core.read_model(data), "CPU", hints).create_infer_request()
        found = request.infer([x])[0]
        right = np.allclose(found, wanted, atol=1e-6)
        line = f"opset {opset}, {shape}: OpenVINO is {'right' if right else 'wrong'}"
        if shape[1] == 32:
            along = slope.reshape(32, *[1] * (len(shape) - 2))
            other = np.allclose(found, np.where(x < 0, along * x, x), atol=1e-6)
            line += ", its slope lies along axis 1" if other else ""
            seen = seen and other
        print(line)
        seen = seen and np.allclose(reference, wanted, atol=1e-6) and right == (shape[1] != 32)
sys.exit(0 if seen else "OpenVINO computes otherwise now: update this finding.")
PYTHON
