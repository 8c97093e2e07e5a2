#!/usr/bin/env bash
# onnx.compose.merge_models (onnx 1.23.2) renames what the second model holds by `prefix2`, so that two
# models with tensors of one name can be joined. Inside the branches of If and the bodies of Loop it
# renames what nodes and inputs of the outer graph give, but not the outer graph's weights. A branch
# that uses such a weight then refers to a name that is gone: merging fails, or, where the first
# model has a tensor of that name (`mean`, `scale`), the branch silently computes with the
# first model's tensor, and onnx.checker passes the result. It hurts who puts preprocessing in front
# of a classifier that has an If or a Loop. ONNX Runtime 1.32 runs all the models.
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
from onnx import compose, helper, numpy_helper

print(f"onnx {onnx.__version__}, onnxruntime {onnxruntime.__version__}")
FLOAT, BOOL = onnx.TensorProto.FLOAT, onnx.TensorProto.BOOL


def value(name):
    return helper.make_tensor_value_info(name, FLOAT, [2])


def model(nodes, inputs, output, **weights):
    held = [numpy_helper.from_array(np.array(x), name) for name, x in weights.items()]
    graph = helper.make_graph(nodes, "graph", [value(x) for x in inputs], [value(output)], held)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def run(network, x):
    session = onnxruntime.InferenceSession(
        network.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    return session.run(None, {network.graph.input[0].name: x})[0]


def branch(name, captured):
    node = helper.make_node("Mul", ["image", captured], [f"{name}_out"])
    return helper.make_graph([node], name, [], [helper.make_tensor_value_info(f"{name}_out", FLOAT, None)])


def classifier(captured):
    """y = image * 3, in whichever branch; the 3 is a weight, or a node's copy of it."""
    return model(
        [
            helper.make_node("Identity", ["scale"], ["copy"]),
            helper.make_node(
                "If", ["yes"], ["y"], then_branch=branch("a", captured), else_branch=branch("b", captured)
            ),
        ],
        ["image"],
        "y",
        scale=np.float32(3),
        yes=np.bool_(True),
    )


scaling = model([helper.make_node("Mul", ["pixels", "scale"], ["out"])], ["pixels"], "out", scale=np.float32(100))
shifting = model([helper.make_node("Add", ["pixels", "shift"], ["out"])], ["pixels"], "out", shift=np.float32(1))
x = np.array([1, 2], np.float32)


def merged(first, second):
    whole = compose.merge_models(first, second, io_map=[("out", "image")], prefix2="net/")
    onnx.checker.check_model(whole, full_check=True)
    return run(whole, x)


right = run(classifier("scale"), run(scaling, x))
wrong, copied = merged(scaling, classifier("scale")), merged(scaling, classifier("copy"))
print(f"one after the other {right.tolist()}; merged {wrong.tolist()}; with a node's copy {copied.tolist()}")
try:
    merged(shifting, classifier("scale"))
    refused = False
except onnx.checker.ValidationError as error:
    refused = "'scale'" in str(error)
    print(f"without such a name in the first model: refused ({str(error).splitlines()[0][:90]})")
as_seen = not np.allclose(wrong, right) and np.allclose(copied, right) and refused
sys.exit(0 if as_seen else "merge_models now does otherwise; update this finding.")
PYTHON
