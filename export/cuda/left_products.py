"""Products with a matrix on the left of many -> on the right: A X = (X' A')'.

For a matrix on the left of a batch ONNX Runtime copies the addresses of all factors from the host;
for one on the right it makes one large product.
"""

from __future__ import annotations

import onnx_ir as ir

from synfer_rt.export.cuda.chain import Chain
from synfer_rt.export.cuda.shapes import dims


def turn_left_products(model: ir.Model) -> None:
    """Replace MatMul [m, k] @ [..., k, n], in place."""
    graph = model.graph
    for node in list(graph):
        left, right = node.inputs[:2] if node.op_type == "MatMul" else (None, None)
        sizes, rank = dims(left), len(dims(right) or ())
        if left is None or right is None or sizes is None or len(sizes) != 2 or rank < 3:
            continue
        swap = {"perm": [*range(rank - 2), rank - 1, rank - 2]}
        matrix = Chain(graph, node, left)
        matrix.append("Transpose", {"perm": [1, 0]})
        matrix.value.shape = ir.Shape([sizes[1], sizes[0]])
        made = Chain(graph, node, right)
        made.append("Transpose", swap)
        made.value.shape = _swapped(right)
        made.append("MatMul", {}, matrix.value)
        made.value.shape = _swapped(node.outputs[0])
        made.append("Transpose", swap)
        made.replace(node)


def _swapped(value: ir.Value) -> ir.Shape | None:
    sizes = dims(value)
    return None if sizes is None else ir.Shape([*sizes[:-2], sizes[-1], sizes[-2]])
