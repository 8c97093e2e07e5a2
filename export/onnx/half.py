"""ONNX networks that compute in float16 -> the same networks computing in float32.

Engines have float32 inputs and outputs, and on CPUs compute in float32. In float16 the last bit of
an input changes the scores by a thousandth, which a comparison could not tell from a fault.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import onnx
from onnx import AttributeProto, GraphProto, NodeProto, TensorProto, numpy_helper

from synfer_rt.export.onnx.model_file import graphs


def in_float32(model: onnx.ModelProto) -> onnx.ModelProto:
    """`model` with float32 inputs, outputs and operators; itself if it has no others.

    Weights that are only stored as float16, and are cast before they are used, stay so.
    """
    nodes = list(_nodes(model.graph))
    casts = [
        a for node in nodes if node.op_type == "Cast" for a in node.attribute if a.name == "to"
    ]
    taken = [value.type.tensor_type for value in model.graph.input]
    if TensorProto.FLOAT16 not in {
        *(cast.i for cast in casts),
        *(kind.elem_type for kind in taken),
    }:
        return model
    converted = onnx.ModelProto()
    converted.CopyFrom(model)
    for graph in graphs(converted.graph):
        del graph.value_info[:]
        for value in (*graph.input, *graph.output):
            if value.type.tensor_type.elem_type == TensorProto.FLOAT16:
                value.type.tensor_type.elem_type = TensorProto.FLOAT
        for tensor in graph.initializer:
            _widen(tensor)
        for node in graph.node:
            for attribute in node.attribute:
                if attribute.type == AttributeProto.TENSOR:
                    _widen(attribute.t)
                elif attribute.name in ("to", "dtype") and attribute.i == TensorProto.FLOAT16:
                    attribute.i = TensorProto.FLOAT
    return converted


def _widen(tensor: TensorProto) -> None:
    if tensor.data_type == TensorProto.FLOAT16:
        array = numpy_helper.to_array(tensor).astype(np.float32)
        tensor.CopyFrom(numpy_helper.from_array(array, tensor.name))


def _nodes(graph: GraphProto) -> Iterator[NodeProto]:
    for inner in graphs(graph):
        yield from inner.node
