#!/usr/bin/env bash
# onnx 1.23.2's version converter rewrites Upsample (opset 9) and Resize (opset 10) without naming the
# rule by which these sampled, so the new Resize follows later defaults: linear enlargement moves by
# half a pixel. Hardmax, which took the maximum of a flattened row until opset 12, takes it along one
# axis afterwards. The converter reports success, and onnx.checker passes the result. It hurts who
# lifts an older classifier to a newer opset and compares nothing. ONNX Runtime 1.32 runs both files.
set -euo pipefail
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
python3 -m venv "$scratch/env"
"$scratch/env/bin/pip" install --quiet onnx==1.23.2 onnxruntime==1.32.0
"$scratch/env/bin/python" - <<'PYTHON'
import sys

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper, version_converter

print(f"onnx {onnx.__version__}, onnxruntime {onnxruntime.__version__}")


def model(op, opset, shape, scales=(), **attributes):
    graph = helper.make_graph(
        [helper.make_node(op, ["x", *(["scales"] if scales else [])], ["y"], **attributes)],
        "one_node",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(np.array(scales, np.float32), "scales")] if scales else [],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)


def run(network, x):
    session = onnxruntime.InferenceSession(
        network.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    return session.run(None, {"x": x})[0].ravel()


row = np.array([0, 1, 5, 2], np.float32)
cases = {
    "Upsample 9": (model("Upsample", 9, [1, 1, 1, 4], (1, 1, 1, 2), mode="linear"), (1, 1, 1, 4)),
    "Resize 10": (model("Resize", 10, [1, 1, 1, 4], (1, 1, 1, 2), mode="linear"), (1, 1, 1, 4)),
    "Hardmax 11": (model("Hardmax", 11, [1, 2, 2], axis=1), (1, 2, 2)),
}
unchanged = []
for name, (old, shape) in cases.items():
    new = version_converter.convert_version(old, 13)
    onnx.checker.check_model(new, full_check=True)
    before, after = run(old, row.reshape(shape)), run(new, row.reshape(shape))
    print(f"{name}: {before.tolist()} became {after.tolist()}")
    if np.array_equal(before, after):
        unchanged.append(name)
sys.exit(f"No longer changed: {', '.join(unchanged)}; update this finding." if unchanged else 0)
PYTHON
