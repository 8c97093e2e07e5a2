"""Attention written out as products and a softmax -> one operator."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir
from onnx_ir.passes.common import RemoveUnusedNodesPass

from synfer_rt.export.cuda.chain import MICROSOFT
from synfer_rt.export.cuda.shapes import constant, dims, infer_shapes

_HEADS_FIRST = (0, 2, 1, 3)
_TRANSPOSED = (("Reshape", None), ("Transpose", (0, 2, 1)), ("Reshape", None))
"""How the exporter transposes the keys of scaled_dot_product_attention."""
_QUERY_PATHS = ((("Transpose", _HEADS_FIRST), ("Reshape", None)),)
_KEY_PATHS = (
    (("Transpose", (0, 2, 3, 1)), ("Reshape", None)),
    (("Transpose", (0, 1, 3, 2)), *_QUERY_PATHS[0]),
    (*_TRANSPOSED, *_QUERY_PATHS[0]),
)
_PASSED = ("Cast", "Dropout", "Identity", "Reshape", "Transpose", "Where")
"""What may be between a softmax and the product with the values."""
_LOWEST_HALF = float(np.finfo(np.float16).min)

_Path = Sequence[tuple[str, tuple[int, ...] | None]]


@dataclass(frozen=True)
class _Heads:
    """A tensor [N, positions, heads * width] that is split into heads and then scaled."""

    source: ir.Value
    heads: int
    scale: float


def fuse_attention(model: ir.Model) -> None:
    """Replace, in place, what `is_attention` finds by MultiHeadAttention of ONNX Runtime.

    On GPUs this is one kernel: flash attention for float16 and heads of at most 256 numbers, the
    memory-efficient kernel for wider heads and for float32 (head sizes that are multiples of 8).
    """
    graph = model.graph
    for node in list(graph):
        if is_attention(node):
            _fuse(graph, node)
    RemoveUnusedNodesPass()(model)
    infer_shapes(model)


def is_attention(node: ir.Node) -> bool:
    """Whether a node is a softmax that weights values.

    FERAnno reads attention maps, too. Their softmax is multiplied by nothing.
    """
    return node.op_type == "Softmax" and _is_multiplied(node.outputs[0])


def _is_multiplied(weights: ir.Value) -> bool:
    return any(
        node.op_type == "MatMul"
        or (node.op_type in _PASSED and any(_is_multiplied(value) for value in node.outputs))
        for node in weights.consumers()
    )


def _fuse(graph: ir.Graph, softmax: ir.Node) -> None:
    """Replace one attention; what is written in another way stays, and the gate names it."""
    scores, masks = _unmasked(softmax.inputs[0])
    scores, scale = _unscaled(scores)
    product = scores.producer() if scores is not None else None
    mixed = _product_of(softmax.outputs[0])
    if product is None or product.op_type != "MatMul" or mixed is None:
        return
    query = _split_heads(product.inputs[0], _QUERY_PATHS)
    key = _split_heads(product.inputs[1], _KEY_PATHS)
    value = _split_heads(mixed.inputs[1], _QUERY_PATHS)
    merged = _merged(mixed)
    if query is None or key is None or value is None or merged is None or value.scale != 1:
        return
    if not query.heads == key.heads == value.heads:
        return
    attributes = {"num_heads": query.heads, "scale": scale * query.scale * key.scale}
    inputs: list[ir.Value | None] = [query.source, key.source, value.source]
    if masks:
        mask = _constant_mask(masks[0]) if len(masks) == 1 else None
        if mask is None:
            return
        if _is_causal(mask):
            attributes["unidirectional"] = 1
        else:
            name = f"{softmax.outputs[0].name}.mask"
            bias = np.maximum(mask, _LOWEST_HALF)[None, None]
            inputs += [None, None, constant(graph, bias.astype(np.float32), name)]
    fused = ir.node("MultiHeadAttention", inputs, attributes, domain=MICROSOFT)
    fused.name = softmax.name
    old, new = merged.outputs[0], fused.outputs[0]
    new.name, new.shape, new.type = old.name, old.shape, old.type
    ir.convenience.replace_nodes_and_values(graph, merged, [merged], [fused], [old], [new])


def _product_of(weights: ir.Value | None) -> ir.Node | None:
    """The MatMul whose left side is `weights`, or `weights` with 0 in place of NaN."""
    for node in weights.consumers() if weights is not None else ():
        if node.op_type == "MatMul" and node.inputs[0] is weights:
            return node
        if node.op_type == "Where" and node.inputs[2] is weights:
            return _product_of(node.outputs[0])
    return None


def _merged(mixed: ir.Node) -> ir.Node | None:
    """The Reshape to [N, positions, heads * width] after the product with the values."""
    node: ir.Node | None = mixed
    for op in ("Transpose", "Reshape"):
        node = _only_reader(node)
        while node is not None and node.op_type == "Reshape" != op and _changes_nothing(node):
            node = _only_reader(node)
        if node is None or node.op_type != op:
            return None
        if op == "Transpose" and _perm(node) != _HEADS_FIRST:
            return None
    after = dims(node.outputs[0]) if node is not None else None
    return node if after is not None and len(after) == 3 else None


def _only_reader(node: ir.Node | None) -> ir.Node | None:
    readers = node.outputs[0].consumers() if node is not None else ()
    return readers[0] if len(readers) == 1 else None


def _changes_nothing(reshape: ir.Node) -> bool:
    before = dims(reshape.inputs[0])
    return before is not None and before == dims(reshape.outputs[0])


def _split_heads(value: ir.Value | None, paths: Sequence[_Path]) -> _Heads | None:
    for path in paths:
        if (found := _along(value, path)) is not None:
            return found
    return None


def _along(value: ir.Value | None, path: _Path) -> _Heads | None:
    """What `value` is made of if it is made by the operators of `path`, last first, and factors."""
    total = 1.0
    node = None
    for op, perm in path:
        value, scale = _unscaled(value)
        total *= scale
        node = value.producer() if value is not None else None
        if node is None or node.op_type != op or (perm is not None and _perm(node) != perm):
            return None
        value = node.inputs[0]
    before, after = dims(value), dims(node.outputs[0]) if node is not None else None
    if value is None or before is None or after is None or (len(before), len(after)) != (3, 4):
        return None
    heads, width = after[2:]
    if not isinstance(heads, int) or not isinstance(width, int) or before[2] != heads * width:
        return None
    return _Heads(value, heads, total)


def _unscaled(value: ir.Value | None) -> tuple[ir.Value | None, float]:
    """`value` without the constants that it was multiplied by, and their product."""
    scale = 1.0
    while value is not None and (node := value.producer()) is not None and node.op_type == "Mul":
        for factor, other in (node.inputs, node.inputs[::-1]):
            number = ir.convenience.get_const_tensor(factor) if factor is not None else None
            if number is not None and number.size == 1:
                scale *= float(number.numpy().reshape(()))
                value = other
                break
        else:
            break
    return value, scale


def _unmasked(scores: ir.Value | None) -> tuple[ir.Value, list[ir.Value]]:
    """The scores before masks are added to them, and the masks."""
    assert scores is not None
    masks: list[ir.Value] = []
    while (node := scores.producer()) is not None and node.op_type == "Add":
        left, right = node.inputs
        assert left is not None and right is not None
        scores = left
        masks.append(right)
    return scores, masks


def _constant_mask(value: ir.Value | None) -> np.ndarray | None:
    """What is added to the scores [positions, keys] of every head, if it is a constant."""
    if value is None:
        return None
    tensor = ir.convenience.get_const_tensor(value)
    if tensor is not None:
        array = tensor.numpy()
        same = array.ndim >= 2 and array.size == array.shape[-1] * array.shape[-2]
        return array.reshape(array.shape[-2:]) if same else None
    node = value.producer()
    if node is None:
        return None
    if node.op_type == "Expand":
        return _constant_mask(node.inputs[0])
    if node.op_type == "Where":
        condition = _constant_mask(node.inputs[0])
        sides = [
            ir.convenience.get_const_tensor(side) if side else None for side in node.inputs[1:]
        ]
        if condition is None or any(side is None or side.size != 1 for side in sides):
            return None
        yes, no = (side.numpy().reshape(()) for side in sides if side is not None)
        return np.where(condition, yes, no)
    return None


def _is_causal(mask: np.ndarray) -> bool:
    """Whether each position sees itself and what is before it, as it is."""
    rows, columns = mask.shape
    seen = np.tri(rows, dtype=bool)
    return rows == columns and not mask[seen].any() and bool((mask[~seen] <= _LOWEST_HALF).all())


def _perm(node: ir.Node) -> tuple[int, ...]:
    return tuple(node.attributes["perm"].as_ints())
