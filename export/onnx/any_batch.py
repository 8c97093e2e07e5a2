"""A graph that was exported with one batch size -> the same graph for any batch size."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx_ir as ir
from onnx_ir.passes.common import RemoveUnusedNodesPass

from synfer_rt.errors import UserError

BATCH = 127
"""The batch size of the export: a prime of which no other dimension is a multiple."""


def any_batch(model: ir.Model, static: frozenset[str], engine: str) -> None:
    """Make BATCH the free dimension `B`, in place, wherever the graph has it.

    These are the shapes of inputs and outputs; the shapes that Reshape and Expand take, in which -1
    is the rest and 1 is unchanged; and constants that repeat the same rows for each sample, which
    the graph then repeats itself. `static` are the inputs and outputs whose first dimension is not
    the batch. Raises UserError, naming `engine`, for a tensor that has the batch twice.
    """
    graph = model.graph
    for value in list(graph.initializers.values()):
        _repeat_rows(graph, value)
    batched = next(value for value in graph.inputs if value.name not in static)
    batch = ir.node("Shape", [batched], {"start": 0, "end": 1}, name="batch")
    batch.outputs[0].name = "batch"
    graph.insert_before(graph[0], batch)
    for node in list(graph):
        sizes = _static_shape(node.outputs[0])
        places = [i for i, size in enumerate(sizes) if size and size % BATCH == 0]
        if len(places) > 1:
            raise UserError(
                f"The {engine} of this checkpoint cannot be exported with a free batch: a "
                f"{node.op_type} to {sizes}; report its architecture as an issue."
            )
        if not places or node.op_type not in ("Reshape", "Expand"):
            continue
        place, before = places[0], _static_shape(node.inputs[0])
        if node.op_type == "Reshape":
            sizes[place] = -1
        elif before[place - len(sizes) :][:1] == sizes[place : place + 1]:
            sizes[place] = 1
        else:  # it repeats rows that all samples share
            count, times = batch.outputs[0], sizes[place] // BATCH
            if times > 1:
                product = ir.node("Mul", [count, _constant(graph, [times])])
                product.outputs[0].name = f"{node.name}_rows"
                graph.insert_before(node, product)
                count = product.outputs[0]
            parts = [_constant(graph, sizes[:place]), _constant(graph, sizes[place + 1 :])]
            joined = [parts[0], count, parts[1]]
            shape = ir.node("Concat", joined, {"axis": 0}, name=f"{node.name}_shape")
            shape.outputs[0].name = shape.name
            graph.insert_before(node, shape)
            node.replace_input_with(1, shape.outputs[0])
            continue
        node.replace_input_with(1, _constant(graph, sizes))
    for node in graph:
        for value in node.outputs:
            if value not in graph.outputs:
                value.shape = None  # it has BATCH in it; the runtimes infer the true shape
    for value in (*graph.inputs, *graph.outputs):
        if value.name not in static:
            assert value.shape is not None
            value.shape = ir.Shape(["B", *list(value.shape)[1:]])
    RemoveUnusedNodesPass()(model)


def _repeat_rows(graph: ir.Graph, value: ir.Value) -> None:
    """Replace a constant that repeats rows for each of BATCH samples by an Expand of the rows."""
    tensor = value.const_value
    if tensor is None or not tensor.shape or not tensor.size:
        return
    array = tensor.numpy()
    if len(array) % BATCH:
        return
    samples = array.reshape(BATCH, -1)
    if not (samples == samples[:1]).all():
        return
    sample = array[:1]
    if len(array) > BATCH:
        sample = array.reshape(BATCH, -1, *array.shape[1:])[:1]
    one = ir.Value(name=f"{value.name}_row", const_value=ir.tensor(sample.copy()))
    one.shape, one.type = ir.Shape(sample.shape), value.type
    first = graph[0]
    last, name = one, f"{value.name}_rows"
    steps = [("Expand", [BATCH, *sample.shape[1:]])]
    if len(array) > BATCH:
        steps.append(("Reshape", list(array.shape)))
    for op, sizes in steps:
        node = ir.node(op, [last, _constant(graph, sizes)], name=f"{name}_{op}")
        last = node.outputs[0]
        last.shape, last.type, last.name = ir.Shape(sizes), value.type, f"{name}_{op}"
        graph.insert_before(first, node)
    ir.convenience.replace_all_uses_with(value, last)
    del graph.initializers[str(value.name)]
    graph.register_initializer(one)


def _constant(graph: ir.Graph, sizes: Sequence[int]) -> ir.Value:
    """An initializer with these sizes; equal sizes share one."""
    name = "_".join(["sizes", *(str(size).replace("-", "m") for size in sizes)])
    if name not in graph.initializers:
        tensor = ir.tensor(np.array(sizes, np.int64), name=name)
        value = ir.Value(name=name, const_value=tensor, type=ir.TensorType(ir.DataType.INT64))
        value.shape = ir.Shape([len(sizes)])
        graph.register_initializer(value)
    return graph.initializers[name]


def _static_shape(value: ir.Value | None) -> list[int]:
    if value is None or value.shape is None:
        return []
    return [int(size) for size in value.shape.numpy()]
