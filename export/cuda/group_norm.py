"""Group normalisation -> ONNX Runtime's kernels, which work on channels last.

They apply a SiLU, and SkipGroupNorm also adds two tensors before: a residual, or the embedding of
the timestep. With `prefer_nhwc` the runtime cancels the transposes around them, because
convolutions have their channels last, too.
"""

from __future__ import annotations

import onnx_ir as ir
from onnx_ir.passes.common import RemoveUnusedNodesPass

from synfer_rt.errors import UserError
from synfer_rt.export.cuda.chain import MICROSOFT, Chain
from synfer_rt.export.cuda.shapes import dims, infer_shapes, integers

_LARGEST_GROUP = 512
"""The most channels that the kernels take in a group, always an even number of them."""


def fuse_group_norm(model: ir.Model) -> None:
    """Replace GroupNormalization, with a SiLU after it and a sum before it, in place.

    Raises UserError for groups that the kernels do not take.
    """
    graph = model.graph
    for node in list(graph):
        if node.op_type == "GroupNormalization":
            _refuse_odd_groups(node)
            _fuse(graph, node)
    RemoveUnusedNodesPass()(model)
    infer_shapes(model)


def _refuse_odd_groups(node: ir.Node) -> None:
    sizes, groups = dims(node.inputs[0]), node.attributes["num_groups"].as_int()
    if sizes is None or not isinstance(sizes[1], int):
        return
    channels = sizes[1] // groups
    if channels % 2 or channels > _LARGEST_GROUP:
        raise UserError(
            f"ONNX Runtime's group norm for CUDA takes an even number of channels a group, up to "
            f"{_LARGEST_GROUP}, but {node.name} has {channels}."
        )


def _fuse(graph: ir.Graph, node: ir.Node) -> None:
    source, gamma, beta = node.inputs[:3]
    sizes = dims(source)
    if source is None or sizes is None or len(sizes) not in (3, 4):
        return
    activated = _silu(node.outputs[0])
    attributes = {
        "groups": node.attributes["num_groups"].as_int(),
        "epsilon": node.attributes.get_float("epsilon", 1e-5),
        "activation": int(activated is not None),
        "channels_last": 1,
    }
    total = _sum(source) if len(sizes) == 4 else None
    if total is not None:
        made = _with_sum(graph, total, (gamma, beta), attributes, node.name)
    else:
        made = Chain(graph, node, source)
        made.append("Transpose", {"perm": [0, *range(2, len(sizes)), 1]})
        if len(sizes) == 3:
            made.append("Unsqueeze", {}, integers(graph, [1]))
        made.append("GroupNorm", attributes, gamma, beta, domain=MICROSOFT).name = node.name
        if len(sizes) == 3:
            made.append("Squeeze", {}, integers(graph, [1]))
        made.append("Transpose", {"perm": [0, len(sizes) - 1, *range(1, len(sizes) - 1)]})
    made.replace(activated or node)


def _silu(value: ir.Value) -> ir.Node | None:
    """The product of `value` with its sigmoid, if nothing else reads `value`."""
    readers = value.consumers()
    if sorted(reader.op_type for reader in readers) != ["Mul", "Sigmoid"]:
        return None
    product, sigmoid = sorted(readers, key=lambda reader: reader.op_type)
    used = sigmoid.outputs[0].consumers()
    factors = set(product.inputs)
    return product if used == (product,) and factors == {value, sigmoid.outputs[0]} else None


def _sum(source: ir.Value) -> tuple[ir.Node, ir.Value, ir.Value] | None:
    """The Add that makes `source`, and its terms: [N, C, h, w], and the same or [N, C]."""
    node = source.producer()
    if node is None or node.op_type != "Add":
        return None
    for term, skip in (node.inputs, node.inputs[::-1]):
        sizes = dims(term)
        if term is None or skip is None or sizes != dims(source) or sizes is None:
            continue
        if dims(skip) == sizes:
            return node, term, skip
        column = skip.producer()
        if column is not None and column.op_type == "Unsqueeze":
            flat = column.inputs[0]
            if flat is not None and dims(flat) == sizes[:2] and dims(skip) == (*sizes[:2], 1, 1):
                return node, term, flat
    return None


def _with_sum(
    graph: ir.Graph,
    total: tuple[ir.Node, ir.Value, ir.Value],
    scale: tuple[ir.Value | None, ir.Value | None],
    attributes: dict[str, int | float],
    name: str | None,
) -> Chain:
    """SkipGroupNorm in the place of the sum, which becomes its second output if others read it."""
    node, term, skip = total
    last, first = {"perm": [0, 2, 3, 1]}, {"perm": [0, 3, 1, 2]}
    if len(dims(skip) or ()) == 4:
        other = Chain(graph, node, skip)
        other.append("Transpose", last)
        skip = other.value
    made = Chain(graph, node, term)
    made.append("Transpose", last)
    read = len(node.outputs[0].uses()) > 1 or node.outputs[0].is_graph_output()
    norm = made.append(
        "SkipGroupNorm", attributes, *scale, skip, domain=MICROSOFT, outputs=2 if read else 1
    )
    norm.name = name
    made.append("Transpose", first)
    if read:
        again = Chain(graph, node, norm.outputs[1])
        again.append("Transpose", first)
        again.replace(node)
    return made
