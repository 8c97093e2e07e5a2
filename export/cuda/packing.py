"""Many small operators on one tensor -> one operator and a Split.

Every residual block of a UNet projects the same embedding of the timestep, and every
cross-attention takes its part of the AU bias. Each of these kernels is finished before the next
is started, so they cost as many starts as there are blocks.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

import onnx_ir as ir
from onnx_ir.passes.common import RemoveUnusedNodesPass

from synfer_rt.export.cuda.shapes import dims, integers

_MOST = 32
"""The most outputs of Split and inputs of Concat that the kernels take without a copy."""


def pack(model: ir.Model) -> None:
    """Join the projections of one tensor, and the slices of one tensor, in place.

    Weights are joined in the graph, which the runtime does once, when it loads the engine. So they
    stay where they are stored.
    """
    graph = model.graph
    projections: dict[tuple[ir.Value, ir.DataType | None], list[ir.Node]] = defaultdict(list)
    slices: dict[tuple[ir.Value, int], list[ir.Node]] = defaultdict(list)
    for node in graph:
        source = node.inputs[0] if node.inputs else None
        if source is None:
            continue
        if _is_projection(node):
            projections[source, node.outputs[0].dtype].append(node)
        elif (span := _span(node)) is not None:
            slices[source, span[0]].append(node)
    for nodes in projections.values():
        for i in range(0, len(nodes), _MOST):
            _join_projections(graph, nodes[i : i + _MOST])
    for (source, axis), nodes in slices.items():
        _join_slices(graph, source, axis, nodes)
    RemoveUnusedNodesPass()(model)


def _is_projection(node: ir.Node) -> bool:
    """Whether a node is x @ weight.T + bias, with constants."""
    attributes = node.attributes
    return (
        node.op_type == "Gemm"
        and len(node.inputs) == 3
        and attributes.get_int("transB", 0) == 1
        and not attributes.get_int("transA", 0)
        and attributes.get_float("alpha", 1.0) == attributes.get_float("beta", 1.0) == 1
        and all(map(_is_stored, node.inputs[1:]))
        and len(dims(node.inputs[2]) or ()) == 1
    )


def _is_stored(value: ir.Value | None) -> bool:
    """Whether a value is a constant, or one in another type."""
    maker = value.producer() if value is not None else None
    if maker is not None and maker.op_type == "Cast":
        value = maker.inputs[0]
    return value is not None and value.is_initializer()


def _join_projections(graph: ir.Graph, nodes: Sequence[ir.Node]) -> None:
    if len(nodes) < 2:
        return
    first = nodes[0]
    joined = []
    for position in (1, 2):
        concat = ir.node("Concat", [node.inputs[position] for node in nodes], {"axis": 0})
        concat.outputs[0].type = first.outputs[0].type
        graph.insert_before(first, concat)
        joined.append(concat.outputs[0])
    product = ir.node("Gemm", [first.inputs[0], *joined], {"transB": 1}, name=first.name)
    product.outputs[0].type = first.outputs[0].type
    graph.insert_before(first, product)
    widths = [int((dims(node.inputs[2]) or (0,))[0] or 0) for node in nodes]
    _split(graph, first, product.outputs[0], 1, widths, nodes)


def _join_slices(graph: ir.Graph, source: ir.Value, axis: int, nodes: Sequence[ir.Node]) -> None:
    spans = {node: span[1:] for node in nodes if (span := _span(node)) is not None}
    ordered = sorted(nodes, key=lambda node: spans[node])
    ends = [0, *(spans[node][1] for node in ordered)]
    sizes = dims(source) or ()
    whole = all(spans[node][0] == end for node, end in zip(ordered, ends, strict=False))
    if not 2 <= len(nodes) <= _MOST or not whole or ends[-1] != sizes[axis]:
        return
    widths = [spans[node][1] - spans[node][0] for node in ordered]
    _split(graph, nodes[0], source, axis, widths, ordered)


def _split(
    graph: ir.Graph,
    place: ir.Node,
    source: ir.Value,
    axis: int,
    widths: Sequence[int],
    nodes: Sequence[ir.Node],
) -> None:
    """Let the outputs of one Split take the place of those of `nodes`."""
    split = ir.node(
        "Split", [source, integers(graph, widths)], {"axis": axis}, num_outputs=len(nodes)
    )
    graph.insert_before(place, split)
    for node, new in zip(nodes, split.outputs, strict=True):
        old = node.outputs[0]
        new.name, new.shape, new.type = old.name, old.shape, old.type
        ir.convenience.replace_nodes_and_values(graph, node, [node], [], [old], [new])


def _span(node: ir.Node) -> tuple[int, int, int] | None:
    """Axis, start and end of a Slice along one axis of known size."""
    if node.op_type != "Slice" or len(node.inputs) < 4:
        return None
    tensors = [
        ir.convenience.get_const_tensor(v) if v is not None else None for v in node.inputs[1:]
    ]
    numbers = [tensor.numpy().tolist() if tensor is not None else None for tensor in tensors]
    sizes = dims(node.inputs[0])
    if sizes is None or None in numbers or any(len(n or ()) != 1 for n in numbers):
        return None
    start, end, axis = (int(n[0]) for n in numbers[:3] if n is not None)
    axis %= len(sizes)
    size = sizes[axis]
    if not isinstance(size, int) or (len(numbers) > 3 and numbers[3] != [1]):
        return None
    start, end = (max(0, min(i + size if i < 0 else i, size)) for i in (start, end))
    return axis, start, end
