"""The ONNX files on which the run side tries whether a backend computes (backends/probes.py).

`python -m synfer_rt.export.onnx.probe_graphs` writes them into the source tree.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
import onnx
from onnx import helper, numpy_helper, parser

from synfer_rt.backends.probes import EPSILON, FOLDER, GROUPS, HEADS, TOKENS, kernel, scale_and_bias

_IR_VERSION, _OPSET = 10, 21
_WIDTH = TOKENS[2] // HEADS
_SIGNATURE = "(float[2,16,64] query, float[2,16,64] key, float[2,16,64] value)"

_GRAPHS = {
    "convolution": """
convolution (float[2,16,8,8] image) => (float[2,16,8,8] result) {
  result = Conv <pads = [1, 1, 1, 1]> (image, kernel)
}""",
    "group-normalisation": f"""
group_normalisation (float[2,16,8,8] image) => (float[2,16,8,8] result) {{
  result = GroupNormalization <num_groups = {GROUPS}, epsilon = {EPSILON}> (image, scale, bias)
}}""",
    "attention": f"""
attention {_SIGNATURE} => (float[2,16,64] result) {{
  split = Constant <value_ints = [2, 16, {HEADS}, {_WIDTH}]> ()
  joined = Constant <value_ints = [2, 16, 64]> ()
  query_split = Reshape (query, split)
  key_split = Reshape (key, split)
  value_split = Reshape (value, split)
  query_heads = Transpose <perm = [0, 2, 1, 3]> (query_split)
  key_turned = Transpose <perm = [0, 2, 3, 1]> (key_split)
  value_heads = Transpose <perm = [0, 2, 1, 3]> (value_split)
  products = MatMul (query_heads, key_turned)
  scores = Mul (products, factor)
  weights = Softmax <axis = -1> (scores)
  heads = MatMul (weights, value_heads)
  heads_last = Transpose <perm = [0, 2, 1, 3]> (heads)
  result = Reshape (heads_last, joined)
}}""",
    "fused-group-normalisation": f"""
fused_group_normalisation (float[2,16,8,8] image) => (float[2,16,8,8] result) {{
  half = Cast <to = 10> (image)
  last = Transpose <perm = [0, 2, 3, 1]> (half)
  activated = com.microsoft.GroupNorm <activation = 1, channels_last = 1, epsilon = {EPSILON},
    groups = {GROUPS}> (last, scale, bias)
  first = Transpose <perm = [0, 3, 1, 2]> (activated)
  result = Cast <to = 1> (first)
}}""",
    "fused-attention": f"""
fused_attention {_SIGNATURE} => (float[2,16,64] result) {{
  query_half = Cast <to = 10> (query)
  key_half = Cast <to = 10> (key)
  value_half = Cast <to = 10> (value)
  heads = com.microsoft.MultiHeadAttention <num_heads = {HEADS}> (query_half, key_half, value_half)
  result = Cast <to = 1> (heads)
}}""",
}


def probe_graphs() -> Mapping[str, bytes]:
    """The files by name, the same bytes on every machine."""
    return {f"{name}.onnx": _model(text).SerializeToString() for name, text in _GRAPHS.items()}


def _model(text: str) -> onnx.ModelProto:
    graph = parser.parse_graph(text)
    scale, bias = scale_and_bias()
    weights = {
        "kernel": kernel(),
        "scale": scale,
        "bias": bias,
        "factor": np.array(1 / math.sqrt(_WIDTH), np.float32),
    }
    read = {name for node in graph.node for name in node.input}
    graph.initializer.extend(
        numpy_helper.from_array(array, name) for name, array in weights.items() if name in read
    )
    opsets = [helper.make_opsetid("", _OPSET), helper.make_opsetid("com.microsoft", 1)]
    foreign = any(node.domain for node in graph.node)
    return helper.make_model(
        graph, ir_version=_IR_VERSION, opset_imports=opsets if foreign else opsets[:1]
    )


def _main() -> None:
    FOLDER.mkdir(exist_ok=True)
    for name, content in probe_graphs().items():
        (FOLDER / name).write_bytes(content)


if __name__ == "__main__":
    _main()
