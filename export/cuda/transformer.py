"""The parts of a transformer block beside its attention -> one operator each."""

from __future__ import annotations

import onnx_ir as ir
from onnx_ir.passes.common import RemoveUnusedNodesPass

from synfer_rt.export.cuda.chain import MICROSOFT, Chain
from synfer_rt.export.cuda.shapes import dims, infer_shapes

_SPLIT_GELU_WIDTHS = frozenset({2560, 5120, 6144, 10240, 12288})
"""The widths before the split that the kernel BiasSplitGelu takes: those of Stable Diffusion."""
_BIAS_ADD_WIDTHS = frozenset({320, 640, 1280})
"""The widths that the kernel BiasAdd takes."""


def fuse_transformer(model: ir.Model) -> None:
    """Fuse sums with the normalisation or the activation that follows them, in place.

    SkipLayerNormalization is LayerNormalization of a sum of two tensors and a bias; BiasSplitGelu
    the gated activation of Shazeer (arXiv 2002.05202); BiasAdd a residual with a bias; QuickGelu is
    x * sigmoid(a * x). ONNX Runtime adds up SkipLayerNormalization's statistics in float32 only
    with the provider option `enable_skip_layer_norm_strict_mode`.
    """
    graph = model.graph
    for fuse in (_skip_layer_norm, _split_gelu, _bias_add, _quick_gelu):
        for node in list(graph):
            if node.graph is graph:
                fuse(graph, node)
        RemoveUnusedNodesPass()(model)
    infer_shapes(model)


def _skip_layer_norm(graph: ir.Graph, node: ir.Node) -> None:
    if node.op_type != "LayerNormalization" or len(node.inputs) < 3 or len(node.outputs) > 1:
        return
    source, gamma, beta = node.inputs[:3]
    total = _producer(source, "Add")
    sizes = dims(source)
    if total is None or sizes is None or len(sizes) != 3 or beta is None:
        return
    left, right = total.inputs
    if left is None or right is None or not dims(left) == dims(right) == sizes:
        return
    (plain, bias), skip = _without_bias(left), right
    if bias is None:
        (plain, bias), skip = _without_bias(right), left
    made = Chain(graph, total, plain)
    read = len(total.outputs[0].uses()) > 1 or total.outputs[0].is_graph_output()
    attributes = {"epsilon": node.attributes.get_float("epsilon", 1e-5)}
    inputs = [skip, gamma, beta, *([bias] if bias is not None else [])]
    fused = made.append(
        "SkipLayerNormalization",
        attributes,
        *inputs,
        domain=MICROSOFT,
        outputs=4 if read else 1,
    )
    fused.name = node.name
    if read:
        fused.outputs[1].name = fused.outputs[2].name = ""  # statistics, which nobody reads
        Chain(graph, total, fused.outputs[3]).replace(total)
    made.replace(node)


def _split_gelu(graph: ir.Graph, node: ir.Node) -> None:
    if node.op_type != "Mul":
        return
    for kept, gate in (node.inputs, node.inputs[::-1]):
        gelu = _producer(gate, "Gelu")
        split = _producer(kept, "Split")
        if gelu is None or split is None or kept is not split.outputs[0]:
            continue
        if gelu.inputs[0] is not split.outputs[1] or len(split.outputs) != 2:
            continue
        source, sizes = split.inputs[0], dims(split.inputs[0])
        if source is None or sizes is None or len(sizes) != 3 or dims(kept) != dims(gate):
            continue
        plain, bias = _without_bias(source)
        exact = gelu.attributes.get_string("approximate", "none") == "none"
        last = split.attributes.get_int("axis", 0) in (-1, 2)
        if bias is None or not exact or not last or sizes[2] not in _SPLIT_GELU_WIDTHS:
            continue
        made = Chain(graph, node, plain)
        made.append("BiasSplitGelu", {}, bias, domain=MICROSOFT)
        made.replace(node)
        return


def _bias_add(graph: ir.Graph, node: ir.Node) -> None:
    sizes = dims(node.outputs[0])
    if node.op_type != "Add" or sizes is None or len(sizes) != 3:
        return
    if sizes[2] not in _BIAS_ADD_WIDTHS:
        return
    for term, skip in (node.inputs, node.inputs[::-1]):
        if term is None or skip is None or not dims(term) == dims(skip) == sizes:
            return
        plain, bias = _without_bias(term)
        if bias is not None:
            made = Chain(graph, node, plain)
            made.append("BiasAdd", {}, bias, skip, domain=MICROSOFT)
            made.replace(node)
            return


def _quick_gelu(graph: ir.Graph, node: ir.Node) -> None:
    if node.op_type != "Mul":
        return
    for value, gate in (node.inputs, node.inputs[::-1]):
        sigmoid = _producer(gate, "Sigmoid")
        if value is None or sigmoid is None:
            continue
        inner, factor = sigmoid.inputs[0], 1.0
        if inner is not value:
            scaled = _producer(inner, "Mul")
            if scaled is None or value not in scaled.inputs:
                continue
            other = scaled.inputs[1] if scaled.inputs[0] is value else scaled.inputs[0]
            tensor = ir.convenience.get_const_tensor(other) if other is not None else None
            if tensor is None or tensor.size != 1:
                continue
            factor = float(tensor.numpy().reshape(()))
        made = Chain(graph, node, value)
        made.append("QuickGelu", {"alpha": factor}, domain=MICROSOFT)
        made.replace(node)
        return


def _without_bias(term: ir.Value) -> tuple[ir.Value, ir.Value | None]:
    """`term` before a constant vector was added to it, if only the fused operator reads `term`."""
    node = _producer(term, "Add")
    if node is None or len(term.uses()) > 1:
        return term, None
    for plain, bias in (node.inputs, node.inputs[::-1]):
        if plain is None or bias is None or dims(plain) != dims(term):
            continue
        if bias.is_initializer() and len(dims(bias) or ()) == 1:
            return plain, bias
    return term, None


def _producer(value: ir.Value | None, op: str) -> ir.Node | None:
    node = value.producer() if value is not None else None
    return node if node is not None and node.op_type == op else None
