#!/usr/bin/env bash
# Tile whose repeats are computed at run time: OpenVINO 2026.4.1 on the CPU gives uninitialised memory
# where three neighbouring axes are repeated and an axis before them is longer than one, as when a
# batch of condition maps is spread over channel groups, height and width. The same repeats written
# into the file, and a batch of one, are right, and so is ONNX Runtime 1.32 on each. No error is
# raised. It hurts models whose grid follows the size of the image, tested on one image.
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
CONSTANT = "r = Constant <value = int64[4] {{{}}}> () y = Tile (x, r)"


def wrong(shape, repeats, written):
    """The share of OpenVINO's values that differ from numpy.tile; ONNX Runtime has none."""
    body = CONSTANT.format(", ".join(map(str, repeats))) if written else "y = Tile (x, r)"
    inputs = "float[B,C,H,W] x" + ("" if written else ", int64[4] r")
    model = parser.parse_model(
        f'<ir_version: 8, opset_import: ["": 13]> g ({inputs}) => (float[b,c,h,w] y) {{ {body} }}'
    )
    onnx.checker.check_model(model, full_check=True)
    data = model.SerializeToString()
    x = 1 + np.random.default_rng(0).random(shape, np.float32)
    given = {"x": x} if written else {"x": x, "r": np.array(repeats)}
    wanted = np.tile(x, repeats)
    assert np.array_equal(onnxruntime.InferenceSession(data).run(None, given)[0], wanted)
    core = openvino.Core()
    hints = {"INFERENCE_PRECISION_HINT": "f32"}
    request = core.compile_model(core.read_model(data), "CPU", hints).create_infer_request()
    found = request.infer(given)[0]
    assert found.shape == wanted.shape
    return float((found != wanted).mean())


seen = True
for shape, repeats, bad in (
    ((4, 6, 8, 8), (1, 2, 2, 2), True),
    ((4, 6, 8, 8), (2, 2, 3, 3), True),
    ((1, 6, 8, 8), (1, 2, 2, 2), False),
    ((4, 6, 8, 8), (1, 1, 2, 2), False),
    ((4, 6, 8, 8), (2, 1, 2, 2), False),
):
    shares = wrong(shape, repeats, False), wrong(shape, repeats, True)
    print(f"{shape} x {repeats}: {shares[0]:.1%} wrong at run time, {shares[1]:.1%} from the file")
    seen = seen and (shares[0] > 0.9) == bad and (bad or shares[0] == 0) and shares[1] == 0
sys.exit(0 if seen else "OpenVINO computes otherwise now: update this finding.")
PYTHON
