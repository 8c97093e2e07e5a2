#!/usr/bin/env bash
# Reductions over the batch and the positions, axes 0, 2 and 3: the DNN module of OpenCV 5.0.0 reads
# the first image once, the second instead of all others, and no further one, without an error. So
# batches of one and two are right; reductions over two axes or over 1, 2 and 3 are, too. It hurts
# networks with the statistics of a batch in the graph, as the definition of
# MeanVarianceNormalization has them, and everyone who compared one image. ONNX Runtime 1.32 is right.
set -euo pipefail
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
cd "$scratch"
python3 -m venv env
env/bin/pip install --quiet opencv-python-headless==5.0.0.93 onnxruntime==1.32.0 onnx==1.23.2 numpy
env/bin/python - <<'PYTHON'
import sys

import cv2
import numpy as np
import onnx
import onnxruntime
from onnx import parser

print(f"opencv {cv2.__version__}, onnxruntime {onnxruntime.__version__}")
NUMPY = {"ReduceMean": np.mean, "ReduceSum": np.sum, "ReduceMax": np.max}


def results(kind, x, axes):
    """The results of OpenCV and of ONNX Runtime."""
    model = parser.parse_model(
        f'<ir_version: 8, opset_import: ["": 11]> g (float[{len(x)},3,8,8] x) => (float[b,c,h,w] y) '
        f"{{ y = {kind} <axes = {axes}> (x) }}"
    )
    onnx.checker.check_model(model, full_check=True)
    data = model.SerializeToString()
    network = cv2.dnn.readNetFromONNX(np.frombuffer(data, np.uint8))
    network.setInput(x, "x")
    return np.asarray(network.forward("y")), onnxruntime.InferenceSession(data).run(None, {"x": x})[0]


seen = True
for kind, reduced in NUMPY.items():
    for axes in ([0, 2, 3], [1, 2, 3], [2, 3]):
        for batch in (1, 2, 3, 8):
            x = np.random.default_rng(0).random((batch, 3, 8, 8), np.float32)
            x += np.arange(batch, dtype=np.float32)[:, None, None, None]
            images = [0] + [1] * (batch - 1) if axes[0] == 0 else list(range(batch))
            wanted, odd = (reduced(y, axis=tuple(axes), keepdims=True) for y in (x, x[images]))
            opencv, reference = results(kind, x, axes)
            if axes[0] == 0:
                print(f"{kind} over {axes} of {batch}: right {wanted[0, 0, 0, 0]:.2f}, OpenCV {opencv[0, 0, 0, 0]:.2f}")
            seen = seen and np.allclose(reference, wanted, rtol=1e-5) and np.allclose(opencv, odd, rtol=1e-5)
            seen = seen and np.allclose(wanted, odd, rtol=1e-2) == (batch < 3 or axes[0] > 0)
sys.exit(0 if seen else "OpenCV computes otherwise now: update this finding.")
PYTHON
