#!/usr/bin/env bash
# Attributes that ONNX added to operators it had: the windows of Attention (opset 25) and the channel
# order of SpaceToDepth (opset 28, torch's pixel_unshuffle). OpenVINO 2026.4.1 and the DNN module of
# OpenCV 5.0.0 read files of these opsets without an error and ignore them: attention sees all
# tokens, and channels come in the old order. OpenCV also ignores Swish's alpha. ONNX Runtime 1.32 and
# onnx 1.23.2 follow the file. It hurts whoever exports at the newest opset and checks shapes.
set -euo pipefail
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
cd "$scratch"
python3 -m venv env
env/bin/pip install --quiet openvino==2026.4.1 opencv-python-headless==5.0.0.93 onnxruntime==1.32.0 onnx==1.23.2 numpy
env/bin/python - <<'PYTHON'
import sys

import cv2
import numpy as np
import onnx
import onnxruntime
import openvino
from onnx import parser

print(f"openvino {openvino.__version__}, opencv {cv2.__version__}, onnxruntime {onnxruntime.__version__}")
draws = np.random.default_rng(0)


def results(opset, node, x, shape):
    """What each tool computes."""
    model = parser.parse_model(
        f'<ir_version: 14, opset_import: ["": {opset}]> '
        f"g (float[{str(x.shape)[1:-1]}] x) => (float[{str(shape)[1:-1]}] y) {{ y = {node} }}"
    )
    onnx.checker.check_model(model, full_check=True)
    data = model.SerializeToString()
    core = openvino.Core()
    hints = {"INFERENCE_PRECISION_HINT": "f32"}
    request = core.compile_model(core.read_model(data), "CPU", hints).create_infer_request()
    network = cv2.dnn.readNetFromONNX(np.frombuffer(data, np.uint8))
    network.setInput(x, "x")
    return {
        "onnxruntime": onnxruntime.InferenceSession(data).run(None, {"x": x})[0],
        "openvino": np.array(request.infer([x])[0]),
        "opencv": np.asarray(network.forward("y")),
    }


def attention(x, reach):
    scores = x @ x.swapaxes(-1, -2) / np.sqrt(x.shape[-1])
    places = np.arange(x.shape[-2])
    scores = np.where(abs(places[:, None] - places) <= reach, scores, -np.inf)
    weights = np.exp(scores - scores.max(-1, keepdims=True))
    return weights / weights.sum(-1, keepdims=True) @ x


def swish(x, alpha):
    return x / (1 + np.exp(-alpha * x))


def in_blocks(x, order):
    b, c, h, w = x.shape
    return x.reshape(b, c, h // 2, 2, w // 2, 2).transpose(order).reshape(b, 4 * c, h // 2, w // 2)


tokens, image = draws.standard_normal((1, 2, 6, 8), np.float32), draws.random((1, 3, 4, 4), np.float32)
deaf = {"openvino", "opencv"}
cases = (
    (25, "Attention <left_window_size = 1, right_window_size = 1> (x, x, x)", tokens,
     attention(tokens, 1), attention(tokens, 9), deaf),
    (28, 'SpaceToDepth <blocksize = 2, mode = "CRD"> (x)', image,
     in_blocks(image, (0, 1, 3, 5, 2, 4)), in_blocks(image, (0, 3, 5, 1, 2, 4)), deaf),
    (24, "Swish <alpha = 0.5> (x)", tokens, swish(tokens, 0.5), swish(tokens, 1), {"opencv"}),
)  # fmt: skip
seen = True
for opset, node, x, wanted, without, ignoring in cases:
    for tool, y in results(opset, node, x, wanted.shape).items():
        follows, ignores = (np.allclose(y, value, atol=1e-4) for value in (wanted, without))
        said = "follows" if follows else "ignores the attribute" if ignores else "computes otherwise"
        print(f"opset {opset}, {node}: {tool} {said}")
        seen = seen and ignores == (tool in ignoring) and follows != ignores
sys.exit(0 if seen else "A tool computes otherwise now: update this finding.")
PYTHON
