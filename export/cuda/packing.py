"""Many small operators on one tensor -> few.

Every residual block of a UNet projects the same embedding of the timestep, and every
cross-attention takes its part of the AU bias. Each of these kernels is finished before the next is
started, so they cost as many starts as there are blocks.

Splits have equal parts, or few along the last axis. The sizes of others are copied by the kernel
from memory of the host, which is free again when a CUDA graph is replayed; and ONNX Runtime turns
slices into such a Split itself.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

import onnx_ir as ir
from onnx_ir.passes.common import RemoveUnusedNodesPass

from synfer_rt.export.cuda.shapes import dims, integers

MOST_PARTS, MOST_EQUAL_PARTS = 4, 32
"""The most parts of a Split, of any sizes along the last axis and of equal ones, without a copy."""

_Part = tuple[int, int, ir.Node]
"""Start and end along an axis, and the node that takes them."""


def split_slices(model: ir.Model) -> None:
    """Replace slices that together are the whole of a tensor by Splits, in place."""
    graph = model.graph
    slices: dict[tuple[ir.Value, int], list[_Part]] = defaultdict(list)
    for node in graph:
        source, span = node.inputs[0] if node.inputs else None, _span(node)
        if source is not None and span is not None:
            slices[source, span[0]].append((*span[1:], node))
    for (source, axis), parts in slices.items():
        parts.sort(key=lambda part: part[:2])
        sizes, edges = dims(source) or (), [0, *(end for _, end, _ in parts)]
        if edges[-1] != sizes[axis] or any(p[0] != e for p, e in zip(parts, edges, strict=False)):
            continue
        widths = {end - start for start, end, _ in parts}
        if axis == len(sizes) - 1 and all(node.op_type == "Slice" for *_, node in parts):
            _split_in_turn(graph, source, axis, parts)
        elif len(widths) > 1 and edges[-1] <= MOST_EQUAL_PARTS:
            _split_into_ones(graph, source, axis, parts)
    RemoveUnusedNodesPass()(model)


def _split_in_turn(graph: ir.Graph, source: ir.Value, axis: int, parts: Sequence[_Part]) -> None:
    """Take the parts along the last axis from a chain of Splits."""
    place, replaced = _first(graph, parts), []
    while len(parts) > 1:
        fits = len(parts) <= MOST_PARTS
        here, rest = (parts, []) if fits else (parts[: MOST_PARTS - 1], parts[MOST_PARTS - 1 :])
        widths = [end - start for start, end, _ in here]
        widths += [rest[-1][1] - rest[0][0]] if rest else []
        sizes = integers(graph, widths)
        split = ir.node("Split", [source, sizes], {"axis": axis}, num_outputs=len(widths))
        graph.insert_before(place, split)
        replaced += zip((node for *_, node in here), split.outputs, strict=False)
        if rest:
            shape = list(dims(source) or ())
            shape[axis] = widths[-1]
            split.outputs[-1].shape, split.outputs[-1].type = ir.Shape(shape), source.type
            source = split.outputs[-1]
        parts = rest
    for node, new in replaced:
        _take_over(graph, node, new)


def _split_into_ones(graph: ir.Graph, source: ir.Value, axis: int, parts: Sequence[_Part]) -> None:
    """Take the parts along another axis from one Split into pieces of one."""
    count = parts[-1][1]
    ones = integers(graph, [1] * count)
    split = ir.node("Split", [source, ones], {"axis": axis}, num_outputs=count)
    graph.insert_before(_first(graph, parts), split)
    for value in split.outputs:
        value.type = source.type
    for start, end, node in parts:
        if node.op_type == "Gather":
            made = ir.node("Squeeze", [split.outputs[start], integers(graph, [axis])])
        elif end - start == 1:
            _take_over(graph, node, split.outputs[start])
            continue
        else:
            made = ir.node("Concat", split.outputs[start:end], {"axis": axis})
        graph.insert_before(node, made)
        _take_over(graph, node, made.outputs[0])


def _first(graph: ir.Graph, parts: Sequence[_Part]) -> ir.Node:
    nodes = {node for *_, node in parts}
    return next(node for node in graph if node in nodes)


def _take_over(graph: ir.Graph, node: ir.Node, new: ir.Value) -> None:
    """Let `new` take the place of the output of `node`, which is removed."""
    old = node.outputs[0]
    new.name, new.shape, new.type = old.name, old.shape, old.type
    ir.convenience.replace_nodes_and_values(graph, node, [node], [], [old], [new])


def _span(node: ir.Node) -> tuple[int, int, int] | None:
    """Axis, start and end of what a Slice, or a Gather of one row, takes of a known size."""
    sizes = dims(node.inputs[0]) if node.inputs else None
    if node.op_type not in ("Slice", "Gather") or sizes is None:
        return None
    tensors = [
        ir.convenience.get_const_tensor(v) if v is not None else None for v in node.inputs[1:]
    ]
    if any(tensor is None or tensor.size != 1 for tensor in tensors):
        return None
    numbers = [int(t.numpy().reshape(())) for t in tensors if t is not None]
    if node.op_type == "Gather":
        if len(dims(node.inputs[1]) or ()) > 0:
            return None
        axis, step = node.attributes.get_int("axis", 0), [1]
        start, end = numbers[0], numbers[0] + 1 or sizes[axis]
    elif len(numbers) < 3:
        return None
    else:
        start, end, axis, *step = numbers
    size = sizes[axis]
    if not isinstance(size, int) or not isinstance(end, int) or step not in ([], [1]):
        return None
    start, end = (max(0, min(i + size if i < 0 else i, size)) for i in (start, end))
    return axis % len(sizes), start, end


def join_projections(model: ir.Model) -> None:
    """Join the projections of one tensor to the same width, in place.

    Weights are joined in the graph, which the runtime does once, when it loads the engine. So they
    stay where they are stored.
    """
    graph = model.graph
    alike: dict[tuple[ir.Value, int | str | None], list[ir.Node]] = defaultdict(list)
    for node in graph:
        source = node.inputs[0] if node.inputs else None
        if source is not None and _is_projection(node):
            alike[source, (dims(node.inputs[2]) or (None,))[0]].append(node)
    for nodes in alike.values():
        for i in range(0, len(nodes), MOST_EQUAL_PARTS):
            _join(graph, nodes[i : i + MOST_EQUAL_PARTS])
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


def _join(graph: ir.Graph, nodes: Sequence[ir.Node]) -> None:
    if len(nodes) < 2:
        return
    first, kind = nodes[0], nodes[0].outputs[0].type
    joined = []
    for position in (1, 2):
        concat = ir.node("Concat", [node.inputs[position] for node in nodes], {"axis": 0})
        joined.append(concat.outputs[0])
        graph.insert_before(first, concat)
    product = ir.node("Gemm", [first.inputs[0], *joined], {"transB": 1}, name=first.name)
    widths = integers(graph, [int((dims(node.inputs[2]) or (0,))[0] or 0) for node in nodes])
    inputs = [product.outputs[0], widths]
    split = ir.node("Split", inputs, {"axis": 1}, num_outputs=len(nodes))
    graph.insert_before(first, [product, split])
    for value in (*joined, *product.outputs):
        value.type = kind
    for node, new in zip(nodes, split.outputs, strict=True):
        _take_over(graph, node, new)
