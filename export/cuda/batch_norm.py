"""Batch normalisation with known statistics -> a factor and a summand for each channel.

As two elementwise operators it computes in float16 like its neighbours, and the runtime folds it
into a convolution before it.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
from onnx_ir.passes.common import RemoveUnusedNodesPass

from synfer_rt.export.cuda.chain import Chain
from synfer_rt.export.cuda.shapes import constant, dims
from synfer_rt.export.onnx.shared_weights import tensor_array


def spell_out_batch_norm(model: ir.Model) -> None:
    """Replace BatchNormalization of constants by Mul and Add, in place."""
    graph = model.graph
    for node in list(graph):
        if node.op_type != "BatchNormalization" or len(node.outputs) > 1:
            continue
        source, sizes = node.inputs[0], dims(node.inputs[0])
        tensors = [ir.convenience.get_const_tensor(v) if v else None for v in node.inputs[1:5]]
        if source is None or sizes is None or any(tensor is None for tensor in tensors):
            continue
        scale, shift, mean, variance = (
            tensor_array(tensor).astype(np.float64) for tensor in tensors if tensor is not None
        )
        factor = scale / np.sqrt(variance + node.attributes.get_float("epsilon", 1e-5))
        column = (len(scale), *[1] * (len(sizes) - 2))
        made = Chain(graph, node, source)
        for op, numbers in (("Mul", factor), ("Add", shift - mean * factor)):
            array = numbers.reshape(column).astype(np.float32)
            made.append(op, {}, constant(graph, array, f"{node.outputs[0].name}.{op}"))
            made.value.shape = source.shape
        made.replace(node)
    RemoveUnusedNodesPass()(model)
