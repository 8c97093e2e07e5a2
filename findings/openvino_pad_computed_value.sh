#!/usr/bin/env bash
# Pad whose value is computed in the graph, such as the mean of the image that is made square:
# OpenVINO 2026.4.1 on the CPU pads with something else, 0 or whatever lies in memory, if the pads are
# constants. With pads that come in at run time it takes the value, as ONNX Runtime 1.32 does in each
# case. No error is raised. It hurts detectors and classifiers whose letterbox is in the graph: the
# border is black, or a huge number, where training had the mean colour.
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
PADS = [0, 0, 1, 1, 0, 0, 1, 1]
x = 1 + np.random.default_rng(0).random((1, 3, 8, 8), np.float32)
wanted = np.full((1, 3, 10, 10), x.mean(), np.float32)
wanted[:, :, 1:9, 1:9] = x

seen = True
for size in ("1,3,8,8", "B,3,H,W"):
    for opset in (13, 21):
        for constant in (True, False):
            inputs = f"float[{size}] x" + ("" if constant else ", int64[8] p")
            pads = f"p = Constant <value = int64[8] {{{str(PADS)[1:-1]}}}> ()" if constant else ""
            mean = "m = ReduceMean <keepdims = 0> (x)"
            model = parser.parse_model(
                f'<ir_version: 10, opset_import: ["": {opset}]> g ({inputs}) => (float[b,3,h,w] y) '
                f"{{ {pads} {mean} y = Pad (x, p, m) }}"
            )
            onnx.checker.check_model(model, full_check=True)
            data = model.SerializeToString()
            given = {"x": x} if constant else {"x": x, "p": np.array(PADS)}
            reference = onnxruntime.InferenceSession(data).run(None, given)[0]
            core = openvino.Core()
            hints = {"INFERENCE_PRECISION_HINT": "f32"}
            request = core.compile_model(core.read_model(data), "CPU", hints).create_infer_request()
            found = request.infer(given)[0]
            right = np.allclose(found, wanted, atol=1e-4)
            print(
                f"images [{size}], opset {opset}, {'constant' if constant else 'run-time'} pads: "
                f"the mean is {x.mean():.3f}, ONNX Runtime pads {reference[0, 0, 0, 0]:.3f}, "
                f"OpenVINO {found[0, 0, 0, 0]:.3g}"
            )
            seen = seen and np.allclose(reference, wanted, atol=1e-4) and right == (not constant)
            seen = seen and np.array_equal(found[:, :, 1:9, 1:9], x)
sys.exit(0 if seen else "OpenVINO computes otherwise now: update this finding.")
PYTHON
