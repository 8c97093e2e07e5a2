#!/usr/bin/env bash
# MaxPool with ceil_mode whose last window would start in the padding behind the image: by the
# specification (opset 22), as in PyTorch, that window is dropped. OpenVINO 2026.4.1 and the DNN module
# of OpenCV 5.0.0 keep it: the result has a row and a column more, of the lowest float (-3.4e38),
# without an error. ONNX Runtime 1.32 is right. It hurts networks whose sizes are free, with a mean
# over positions behind: the shapes fit, and for some sizes of image the features are huge numbers.
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


def pooled(x):
    """The maximum over windows 2x2 at every second place of the padded image, without empty ones."""
    padded = np.pad(x[0, 0], 1, constant_values=-np.inf)
    starts = [range(0, n + 1, 2) for n in x.shape[2:]]
    rows = [[padded[i : i + 2, j : j + 2].max() for j in starts[1]] for i in starts[0]]
    return np.array([[rows]], np.float32)


seen = True
for size in (4, 5):
    model = parser.parse_model(
        '<ir_version: 10, opset_import: ["": 22]> '
        f"g (float[1,1,{size},{size}] x) => (float[1,1,h,w] y) {{ y = MaxPool "
        "<kernel_shape = [2, 2], strides = [2, 2], pads = [1, 1, 1, 1], ceil_mode = 1> (x) }"
    )
    onnx.checker.check_model(model, full_check=True)
    data = model.SerializeToString()
    x = np.random.default_rng(0).random((1, 1, size, size), np.float32)
    core = openvino.Core()
    hints = {"INFERENCE_PRECISION_HINT": "f32"}
    request = core.compile_model(core.read_model(data), "CPU", hints).create_infer_request()
    network = cv2.dnn.readNetFromONNX(np.frombuffer(data, np.uint8))
    network.setInput(x, "x")
    found = {
        "onnxruntime": onnxruntime.InferenceSession(data).run(None, {"x": x})[0],
        "openvino": np.array(request.infer([x])[0]),
        "opencv": np.asarray(network.forward("y")),
    }
    wanted = pooled(x)
    for tool, y in found.items():
        right = y.shape == wanted.shape and np.array_equal(y, wanted)
        print(f"{size}x{size}: {tool} {y.shape[2:]}, least {y.min():.3g}, right {wanted.shape[2:]}, {wanted.min():.3g}")
        seen = seen and right == (size == 4 or tool == "onnxruntime")
        seen = seen and (right or (y.shape == (1, 1, 4, 4) and (y[0, 0, 3] < -3e38).all()))
sys.exit(0 if seen else "A tool computes otherwise now: update this finding.")
PYTHON
