"""CUDA engines in operators that ONNX Runtime also computes on CPUs, to compare them with.

The CPU provider has MultiHeadAttention and SkipLayerNormalization, but none of the operators here.
Each is written out by its definition in ONNX Runtime's documentation of `com.microsoft`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir

from synfer_rt.export.cuda.chain import MICROSOFT
from synfer_rt.export.cuda.float16 import FUSED
from synfer_rt.export.tensorrt.mixed_precision import spell_out_roundings


def write_reference(engine: Path, target: Path) -> None:
    """Write the CUDA engine `engine` to `target` in the same folder, for ONNX Runtime on CPUs.

    What is float16 in `engine` is rounded to float16 after every operator, as on a GPU, and summed
    in float32 within.
    """
    model = ir.load(engine)
    spell_out_roundings(model.graph, FUSED)
    for node in list(model.graph):
        if node.domain == MICROSOFT and node.op_type in _WRITTEN_OUT:
            old = list(node.outputs)
            written = _Written(model.graph, node)
            new = _WRITTEN_OUT[node.op_type](written, node)
            ir.convenience.replace_nodes_and_values(model.graph, node, [node], [], old, new)
    ir.save(model, target)


class _Written:
    """Inserts operators before the one that they replace."""

    def __init__(self, graph: ir.Graph, place: ir.Node) -> None:
        self._graph, self._place = graph, place

    def __call__(self, op: str, *inputs: ir.Value | None, **attributes: Any) -> ir.Value:
        return self.node(op, inputs, attributes).outputs[0]

    def node(
        self,
        op: str,
        inputs: Sequence[ir.Value | None],
        attributes: Mapping[str, Any],
        outputs: int = 1,
    ) -> ir.Node:
        node = ir.node(op, inputs, attributes, num_outputs=outputs)
        self._graph.insert_before(self._place, node)
        for value in node.outputs:
            value.type = self._place.outputs[0].type
        return node


def _group_norm(write: _Written, node: ir.Node) -> list[ir.Value]:
    source, gamma, beta = node.inputs[:3]
    return [_normalised(write, node, source, gamma, beta)]


def _skip_group_norm(write: _Written, node: ir.Node) -> list[ir.Value]:
    """The input plus the skip, [N, h, w, C] or [N, C], is normalised and is the second output."""
    source, gamma, beta, skip = node.inputs[:4]
    if skip is not None and skip.shape is not None and len(skip.shape) == 2:
        axes = ir.tensor(np.array([1, 2], np.int64))
        skip = write("Unsqueeze", skip, write("Constant", value=axes))
    total = write("Add", source, skip)
    return [_normalised(write, node, total, gamma, beta), total][: len(node.outputs)]


def _normalised(
    write: _Written,
    node: ir.Node,
    source: ir.Value | None,
    gamma: ir.Value | None,
    beta: ir.Value | None,
) -> ir.Value:
    first = write("Transpose", source, perm=[0, 3, 1, 2])
    groups = node.attributes["groups"].as_int()
    epsilon = node.attributes["epsilon"].as_float()
    out = write("GroupNormalization", first, gamma, beta, num_groups=groups, epsilon=epsilon)
    if node.attributes["activation"].as_int():
        out = write("Mul", out, write("Sigmoid", out))
    return write("Transpose", out, perm=[0, 2, 3, 1])


def _bias_split_gelu(write: _Written, node: ir.Node) -> list[ir.Value]:
    source, bias = node.inputs[:2]
    split = write.node("Split", [write("Add", source, bias)], {"axis": -1, "num_outputs": 2}, 2)
    kept, gate = split.outputs
    return [write("Mul", kept, write("Gelu", gate))]


def _bias_add(write: _Written, node: ir.Node) -> list[ir.Value]:
    source, bias, skip = node.inputs[:3]
    return [write("Add", write("Add", source, bias), skip)]


_WRITTEN_OUT: dict[str, Callable[[_Written, ir.Node], list[ir.Value]]] = {
    "BiasAdd": _bias_add,
    "BiasSplitGelu": _bias_split_gelu,
    "GroupNorm": _group_norm,
    "SkipGroupNorm": _skip_group_norm,
}
