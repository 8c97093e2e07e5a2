"""CUDA engines in operators that ONNX Runtime also computes on CPUs, to compare them with.

The CPU provider has MultiHeadAttention and SkipLayerNormalization, but none of the operators here.
Each is written out by its definition in ONNX Runtime's documentation of `com.microsoft`.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import onnx_ir as ir

from synfer_rt.export.cuda.attention import MICROSOFT
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

    def __call__(self, op: str, *inputs: ir.Value | None, **attributes: object) -> ir.Value:
        node = ir.node(op, inputs, attributes)  # pyright: ignore[reportArgumentType]
        self._graph.insert_before(self._place, node)
        node.outputs[0].type = self._place.outputs[0].type
        return node.outputs[0]


def _group_norm(write: _Written, node: ir.Node) -> list[ir.Value]:
    source, gamma, beta = node.inputs[:3]
    first = write("Transpose", source, perm=[0, 3, 1, 2])
    groups = node.attributes["groups"].as_int()
    epsilon = node.attributes["epsilon"].as_float()
    out = write("GroupNormalization", first, gamma, beta, num_groups=groups, epsilon=epsilon)
    if node.attributes["activation"].as_int():
        out = write("Mul", out, write("Sigmoid", out))
    return [write("Transpose", out, perm=[0, 2, 3, 1])]


_WRITTEN_OUT: dict[str, Callable[[_Written, ir.Node], list[ir.Value]]] = {"GroupNorm": _group_norm}
