#!/usr/bin/env bash
# Div of uint8 pixels: by the specification integer division cuts the fraction off. OpenVINO 2026.4.1
# on the CPU does so if the sizes of the images are fixed in the file; if they are free, it rounds to
# the nearest even integer, so pixels of one image differ by one between two exports of the same
# network. No error is raised. int32 is right in both. It hurts preprocessing on bytes in the graph,
# such as the mean of two frames or fewer grey levels, and hashes of its results.
set -euo pipefail
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
cd "$scratch"
python3 -m venv env
env/bin/pip install --quiet openvino==2026.4.1 onnx==1.23.2 numpy
env/bin/python - <<'PYTHON'
import sys

import numpy as np
import onnx
import openvino
from onnx import parser
from onnx.reference import ReferenceEvaluator

print(f"openvino {openvino.__version__}, onnx {onnx.__version__}")
pixels = np.arange(256).reshape(1, 1, 16, 16)
seen = True
for kind in ("uint8", "int32"):
    for divisor in (2, 3, 16):
        exact = pixels / divisor
        for sizes in ("1,1,16,16", "B,C,H,W"):
            model = parser.parse_model(
                f'<ir_version: 10, opset_import: ["": 14]> g ({kind}[{sizes}] x) => ({kind}[{sizes}] y) '
                f"{{ d = Constant <value = {kind} {{{divisor}}}> () y = Div (x, d) }}"
            )
            onnx.checker.check_model(model, full_check=True)
            x = pixels.astype(kind)
            core = openvino.Core()
            compiled = core.compile_model(core.read_model(model.SerializeToString()), "CPU")
            y = np.array(compiled.create_infer_request().infer([x])[0])
            cut, rounded = np.array_equal(y, x // divisor), np.array_equal(y, exact.round())
            print(f"{kind} / {divisor}, sizes {sizes}: {'cut off' if cut else 'rounded' if rounded else 'other'}")
            seen = seen and np.array_equal(ReferenceEvaluator(model).run(None, {"x": x})[0], x // divisor)
            seen = seen and (rounded if kind == "uint8" and "B" in sizes else cut)
sys.exit(0 if seen else "OpenVINO computes otherwise now: update this finding.")
PYTHON
