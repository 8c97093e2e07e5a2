"""A graph that was made for one batch -> the same for any."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx_ir as ir
from onnx_ir.passes.common import RemoveUnusedNodesPass

from synfer_rt.errors import UserError

BATCH = 127
"""Stands for the batch while a graph is made: a prime of which no dimension is a multiple."""


def any_batch(model: ir.Model, static: frozenset[str], engine: str) -> None:
    """Make BATCH the free dimension `B`, in place, wherever the graph has it.

    That is in the shapes of inputs and outputs; in those that Reshape and Expand take, where -1
    stands for what is left and 1 for as it is; and in constants that repeat the same rows for each
    sample, which the graph then repeats itself. `static` are the inputs and outputs that have no
    batch in front. Raises UserError, naming `engine`, for a tensor that has the batch twice.
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
        else:  # it repeats what all samples have in common
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
                value.shape = None  # still that of BATCH; the runtimes infer the true one
    for value in (*graph.inputs, *graph.outputs):
        if value.name not in static:
            assert value.shape is not None
            value.shape = ir.Shape(["B", *list(value.shape)[1:]])
    RemoveUnusedNodesPass()(model)


def _repeat_rows(graph: ir.Graph, value: ir.Value) -> None:
    """Put an Expand of a sample's rows in place of a constant that has them for each of BATCH."""
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
    """An initializer of these sizes, the same one for the same sizes."""
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
    return [int(size) for size in value.shape]  # type: ignore[arg-type]
