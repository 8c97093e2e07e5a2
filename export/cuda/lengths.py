"""The length of an axis as a number on the GPU.

Networks that resize images of free size compute the weights from the image's height and width:
`Gather(Shape(images), axis)`, and a Range of it. On the host this would stop the GPU.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
from onnx_ir.passes.common import RemoveUnusedNodesPass

from synfer_rt.export.cuda.chain import Chain
from synfer_rt.export.cuda.shapes import constant, dims, integers

_FLOAT, _INT = {"to": int(ir.DataType.FLOAT)}, {"to": int(ir.DataType.INT64)}


def count_on_device(model: ir.Model) -> None:
    """Replace the lengths described above, in place: ones along the axis are added up."""
    graph = model.graph
    for node in list(graph):
        measured = _measured(node)
        if measured is None:
            continue
        ones = _ones(graph, node, *measured)
        for reader in list(node.outputs[0].consumers()):
            if reader.op_type == "Range" and _counts(reader, node.outputs[0]):
                steps = Chain(graph, reader, ones)
                steps.append("CumSum", {"exclusive": 1}, constant(graph, np.array(0), "axis_0"))
                steps.append("Cast", _INT)
                steps.replace(reader)
        total = Chain(graph, node, ones)
        total.append("ReduceSum", {"keepdims": 0}, integers(graph, [0]))
        total.append("Cast", _INT)
        total.replace(node)
    RemoveUnusedNodesPass()(model)


def _measured(node: ir.Node) -> tuple[ir.Value, int] | None:
    """The tensor of which a node takes the length of one axis, and the axis."""
    if node.op_type != "Gather" or node.inputs[0] is None or node.inputs[1] is None:
        return None
    shape, index = node.inputs[0].producer(), ir.convenience.get_const_tensor(node.inputs[1])
    if shape is None or shape.op_type != "Shape" or shape.attributes or shape.inputs[0] is None:
        return None
    if index is None or tuple(index.shape.numpy()) != () or not dims(shape.inputs[0]):
        return None
    return shape.inputs[0], int(index.numpy().reshape(()))


def _ones(graph: ir.Graph, place: ir.Node, source: ir.Value, axis: int) -> ir.Value:
    """As many ones as `source` is long, from a line of its numbers, whatever these are."""
    rank = len(dims(source) or (None,))
    others = [i for i in range(rank) if i != axis % rank]
    line = Chain(graph, place, source)
    spans = (integers(graph, [number] * len(others)) for number in (0, 1))
    line.append("Slice", {}, *spans, integers(graph, others))
    line.append("Reshape", {}, integers(graph, [-1]))
    line.append("IsNaN", {}, dtype=ir.DataType.BOOL)
    one = constant(graph, np.array(1, np.float32), "one_of_line")
    line.append("Where", {}, one, one, dtype=ir.DataType.FLOAT)
    return line.value


def _counts(node: ir.Node, length: ir.Value) -> bool:
    """Whether a Range counts from 0 to `length`."""
    start, end, step = node.inputs
    first, by = (ir.convenience.get_const_tensor(v) if v else None for v in (start, step))
    if first is None or by is None or end is not length:
        return False
    return int(first.numpy().reshape(())) == 0 and int(by.numpy().reshape(())) == 1
