#!/usr/bin/env bash
# torch 2.13.0's ONNX exporter (dynamo=True) drops two arguments and reports success: align_corners
# of an antialiased F.interpolate, bilinear or bicubic, and divisor_override of F.avg_pool2d. The
# files load and run in ONNX Runtime 1.32 and give other numbers than torch; without antialias,
# align_corners is kept. It hurts whoever exports a classifier together with its own resizing, or a
# network whose pooling sums (divisor_override=1), and does not compare the outputs.
set -euo pipefail
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
python3 -m venv "$scratch/env"
"$scratch/env/bin/pip" install --quiet torch==2.13.0 numpy==2.4.6 onnx==1.23.2 onnxscript==0.7.2 onnxruntime==1.32.0
"$scratch/env/bin/python" - <<'PYTHON' 2>/dev/null
import contextlib
import os
import sys

import onnxruntime
import torch
import torch.nn.functional as F

print(f"torch {torch.__version__}, onnxruntime {onnxruntime.__version__}")


def difference(function):
    """The largest difference between torch and the exported file in ONNX Runtime."""

    class Network(torch.nn.Module):
        def forward(self, images):
            return function(images)

    images = torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    with open(os.devnull, "w") as nowhere, contextlib.redirect_stdout(nowhere):
        program = torch.onnx.export(Network().eval(), (images,), dynamo=True, opset_version=21)
    session = onnxruntime.InferenceSession(program.model_proto.SerializeToString())
    (output,) = session.run(None, {session.get_inputs()[0].name: images.numpy()})
    return float((torch.from_numpy(output) - function(images)).abs().max())


def smaller(mode, antialias, align_corners):
    return lambda x: F.interpolate(
        x, size=(8, 8), mode=mode, antialias=antialias, align_corners=align_corners
    )


wrong = {
    "bilinear, antialias, align_corners": smaller("bilinear", True, True),
    "bicubic, antialias, align_corners": smaller("bicubic", True, True),
    "avg_pool2d, divisor_override=1": lambda x: F.avg_pool2d(x, 2, divisor_override=1),
}
right = {
    "bilinear, antialias": smaller("bilinear", True, False),
    "bilinear, align_corners": smaller("bilinear", False, True),
    "avg_pool2d": lambda x: F.avg_pool2d(x, 2),
}
found = {name: difference(function) for name, function in {**wrong, **right}.items()}
for name, size in found.items():
    print(f"{name}: differs by {size:.2g}")
same = all(found[x] > 0.05 for x in wrong) and all(found[x] < 1e-5 for x in right)
print("as described" if same else "The exporter changed: update this finding.")
sys.exit(not same)
PYTHON
