#!/usr/bin/env bash
# An ONNX file may define an operator itself, as a local function. If it defines one that the runtime
# has too (here com.microsoft.Gelu, by its sigmoid approximation), ONNX Runtime 1.32 and OpenVINO 2026.4.1
# compute their own operator and ignore the file's definition, without a word. onnx 1.23.2 uses the
# definition: its checker passes the file, its reference evaluator and its inliner compute with it.
# Under another domain name ONNX Runtime uses the definition as well. It hurts who ships the definition of an operator with the
# file, so that runtimes without a kernel for it can run it (a fallback for com.microsoft.GroupNorm
# is refused by ONNX Runtime's CPU provider), and who compares a runtime with the reference evaluator.
set -euo pipefail
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
python3 -m venv "$scratch/env"
"$scratch/env/bin/pip" install --quiet onnx==1.23.2 onnxruntime==1.32.0 openvino==2026.4.1
"$scratch/env/bin/python" - <<'PYTHON'
import io
import sys

import numpy as np
import onnx
import onnx.inliner
import onnx.parser
import onnxruntime
import openvino
from onnx.reference import ReferenceEvaluator

print(f"onnx {onnx.__version__}, onnxruntime {onnxruntime.__version__}, openvino {openvino.__version__}")

SIGMOID_GELU = """
<domain: "DOMAIN", opset_import: ["" : 21]> Gelu (x) => (y)
{
    factor = Constant<value_float = 1.702>()
    scaled = Mul(x, factor)
    part = Sigmoid(scaled)
    y = Mul(x, part)
}
"""
GROUP_NORM = """
<domain: "DOMAIN", opset_import: ["" : 21]> GroupNorm <groups: int, activation: int> (x, gamma, beta) => (y)
{
    first = Transpose<perm = [0, 3, 1, 2]>(x)
    normal = GroupNormalization<num_groups: int = @groups>(first, gamma, beta)
    y = Transpose<perm = [0, 2, 3, 1]>(normal)
}
"""


def model(graph, function, domain):
    head = f'<ir_version: 10, opset_import: ["" : 21, "{domain}" : 1]>'
    whole = onnx.parser.parse_model((head + graph + function).replace("DOMAIN", domain))
    onnx.checker.check_model(whole, full_check=True)
    return whole


def reference(network, inputs):
    return ReferenceEvaluator(network).run(None, inputs)[0]


def ort(network, inputs):
    session = onnxruntime.InferenceSession(
        network.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    return session.run(None, inputs)[0]


def ov(network, inputs):
    read = openvino.Core().read_model(io.BytesIO(network.SerializeToString()))
    return openvino.Core().compile_model(read, "CPU")(list(inputs.values()))[0]


def inlined(network, inputs):
    return ort(onnx.inliner.inline_local_functions(network), inputs)


x = {"a": np.float32([-2, -1, 2])}
gelu = "gelu (float[3] a) => (float[3] b) { b = DOMAIN.Gelu(a) }"
ways = {"reference evaluator": reference, "inliner": inlined, "ONNX Runtime": ort, "OpenVINO": ov}
seen = {}
for domain in ("com.microsoft", "example"):
    for name, run in ways.items():
        if (domain, name) == ("example", "OpenVINO"):
            continue  # it does not read local functions, and refuses
        seen[domain, name] = run(model(gelu, SIGMOID_GELU, domain), x)
        print(f"{domain}.Gelu, {name}: {seen[domain, name].tolist()}")

images = {
    "a": np.random.default_rng(0).standard_normal((1, 2, 2, 4), np.float32),
    "g": np.ones(4, np.float32),
    "h": np.zeros(4, np.float32),
}
norm = (
    "norm (float[1,2,2,4] a, float[4] g, float[4] h) => (float[1,2,2,4] b)"
    " { b = DOMAIN.GroupNorm<groups = 2, activation = 0>(a, g, h) }"
)
groups = images["a"].reshape(1, 4, 2, 2)  # pixels, groups, channels of a group
wanted = (groups - groups.mean((1, 3), keepdims=True)) / groups.std((1, 3), keepdims=True)
found = ort(model(norm, GROUP_NORM, "example"), images)
elsewhere = np.allclose(found, wanted.reshape(1, 2, 2, 4), atol=1e-3)
try:
    ort(model(norm, GROUP_NORM, "com.microsoft"), images)
    refused = False
except Exception as error:  # NotImplemented, which onnxruntime does not export
    refused = "GroupNorm" in str(error)
    print(f"com.microsoft.GroupNorm with its definition, ONNX Runtime: {str(error)[:110]}")
print(f"example.GroupNorm, ONNX Runtime: right: {elsewhere}")

defined = seen["com.microsoft", "reference evaluator"]
as_seen = (
    all(np.allclose(seen["example", name], defined, atol=1e-6) for name in list(ways)[:3])
    and np.allclose(seen["com.microsoft", "inliner"], defined, atol=1e-6)
    and all(
        np.abs(seen["com.microsoft", name] - defined).max() > 1e-4
        for name in ("ONNX Runtime", "OpenVINO")
    )
    and refused
    and elsewhere
)
sys.exit(0 if as_seen else "A definition in the file now counts otherwise; update this finding.")
PYTHON
