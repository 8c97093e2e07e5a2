"""The state of a text's end token, without an index on the host.

CLIP takes the state at the first position where a number is largest: `states[range, argmax]`. The
CUDA provider has no ArgMax of integers, its reductions promise nothing about equal numbers, and
what GatherND copies for an index is not valid any more when a CUDA graph is replayed. A product
with a one-hot row gives the same, exactly.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
from onnx_ir.passes.common import RemoveUnusedNodesPass

from synfer_rt.export.cuda.chain import Chain
from synfer_rt.export.cuda.shapes import constant, dims, integers


def select_by_product(model: ir.Model) -> None:
    """Replace the selections described above, in place."""
    graph = model.graph
    for node in list(graph):
        if node.op_type == "GatherND":
            _replace(graph, node)
    RemoveUnusedNodesPass()(model)


def _replace(graph: ir.Graph, gather: ir.Node) -> None:
    states = gather.inputs[0]
    numbers = _position_of_largest(gather)
    sizes, shape = dims(numbers), dims(states)
    if states is None or numbers is None or sizes is None or shape is None:
        return
    length = sizes[-1]
    if len(sizes) != 2 or len(shape) != 3 or not isinstance(length, int):
        return
    earlier = constant(graph, np.arange(length, 0, -1, dtype=np.float32), f"earlier_{length}")
    row = Chain(graph, gather, numbers)
    kind = {"to": int(ir.DataType.FLOAT)}
    row.append("Cast", kind)
    for weight in (earlier, None):  # the largest numbers; then the first of them
        if weight is not None:
            _mark_largest(graph, row)
            row.append("Cast", kind)
            row.append("Mul", {}, weight)
        else:
            _mark_largest(graph, row)
    row.append("Cast", kind)
    row.append("Unsqueeze", {}, integers(graph, [1]))
    row.value.shape = ir.Shape([sizes[0], 1, length])
    row.append("MatMul", {}, states)
    row.value.shape = ir.Shape([sizes[0], 1, shape[2]])
    row.append("Squeeze", {}, integers(graph, [1]))
    row.replace(gather)


def _mark_largest(graph: ir.Graph, row: Chain) -> None:
    numbers = row.value
    row.append("ReduceMax", {"keepdims": 1}, integers(graph, [-1]))
    row.append("Equal", {}, numbers, dtype=ir.DataType.BOOL)


def _position_of_largest(gather: ir.Node) -> ir.Value | None:
    """The numbers [N, L] of which `gather` takes, for each row, the first of the largest."""
    joined = _producer(gather.inputs[1], "Concat")
    if joined is None or gather.attributes.get_int("batch_dims", 0) or len(joined.inputs) != 2:
        return None
    rows, place = (_producer(value, "Unsqueeze") for value in joined.inputs)
    counted = _producer(rows.inputs[0], "Range") if rows is not None else None
    largest = _producer(place.inputs[0], "ArgMax") if place is not None else None
    if counted is None or largest is None:
        return None
    attributes = largest.attributes
    last = attributes.get_int("select_last_index", 0)
    if last or attributes.get_int("keepdims", 1) or attributes.get_int("axis", 0) not in (-1, 1):
        return None
    return largest.inputs[0]


def _producer(value: ir.Value | None, op: str) -> ir.Node | None:
    node = value.producer() if value is not None else None
    return node if node is not None and node.op_type == op else None
