"""The ONNX network within an engine: image_network.compose_network undone."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import onnx_ir as ir
from onnx_ir.passes.common import ShapeInferencePass

from synfer_rt.bundle.engine_specs import BATCH
from synfer_rt.export.networks.image_network import PREPARED, name_prefix
from synfer_rt.export.onnx.shared_weights import tensor_array
from synfer_rt.networks.descriptions import CHANNELS

_HALF = ".half"


def unpacked_network(engine: Path, kind: str, description: Mapping[str, Any]) -> ir.Model:
    """The network of an engine that compose_network made for a network of `kind`.

    It takes prepared images, of the shape that `description` (image_network.INPUT_FIELDS) gives,
    and gives scores; its float32 weights have the names that they had in the network's own file.
    """
    model = ir.load(engine)
    graph, prefix = model.graph, name_prefix(kind)

    def within(value: ir.Value | None) -> bool:
        return value is not None and (value.name or "").startswith(prefix)

    around = [node for node in graph if not any(map(within, node.outputs))]
    prepared = next(v for node in around for v in node.outputs if v.name == PREPARED)
    scores = [value for node in around for value in node.inputs if value and within(value)]
    size, count = description["input_size"], CHANNELS[description["channels"]]
    last = prepared.producer()
    channels_last = last is not None and last.op_type == "Transpose"
    shape = ir.Shape([BATCH, size, size, count] if channels_last else [BATCH, count, size, size])
    images = ir.Value(name="images", shape=shape, type=ir.TensorType(ir.DataType.FLOAT))
    ir.convenience.replace_all_uses_with(prepared, images)
    graph.inputs[:] = [images]
    graph.outputs[:] = scores
    graph.remove(around, safe=True)
    for value in scores:
        value.type = ir.TensorType(ir.DataType.FLOAT)
    _unfold_half(graph)
    _strip_names(graph, prefix)
    ShapeInferencePass()(model)
    for value in scores:  # a graph says its outputs'
        value.shape = value.shape or ir.Shape([BATCH, "scores"])
    return model


def _unfold_half(graph: ir.Graph) -> None:
    """Replace weights that are stored as float16 behind a Cast (store_half) by float32 ones."""
    for node in list(graph):
        stored = node.inputs[0] if node.op_type == "Cast" else None
        if stored is None or stored.const_value is None:
            continue
        if stored.name != f"{node.outputs[0].name}{_HALF}":
            continue
        array = tensor_array(stored.const_value).astype("f4")
        name = node.outputs[0].name
        weight = ir.Value(
            name=name,
            const_value=ir.Tensor(array, name=name),
            shape=ir.Shape(array.shape),
            type=ir.TensorType(ir.DataType.FLOAT),
        )
        ir.convenience.replace_all_uses_with(node.outputs[0], weight)
        graph.remove(node, safe=True)
        graph.register_initializer(weight)


def _strip_names(graph: ir.Graph, prefix: str) -> None:
    """Give every value and node the name that it had, and keep the weights that are used."""
    weights = [
        value
        for name, value in graph.initializers.items()
        if name.startswith(prefix) and value.uses()
    ]
    graph.initializers.clear()
    values = [*weights, *graph.outputs]
    for node in ir.traversal.RecursiveGraphIterator(graph):
        node.name = (node.name or "").removeprefix(prefix)
        values += node.outputs
        for attribute in node.attributes.values():
            if attribute.type == ir.AttributeType.GRAPH:
                values += attribute.as_graph().inputs
    for value in values:
        value.name = (value.name or "").removeprefix(prefix)
    for value in weights:
        tensor = value.const_value
        assert tensor is not None
        value.const_value = ir.Tensor(tensor_array(tensor), name=value.name)
        graph.register_initializer(value)
