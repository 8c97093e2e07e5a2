"""Group normalisation -> ONNX Runtime's kernel, which works on channels last and applies SiLU."""

from __future__ import annotations

import onnx_ir as ir
from onnx_ir.passes.common import RemoveUnusedNodesPass

from synfer_rt.errors import UserError
from synfer_rt.export.cuda.attention import MICROSOFT
from synfer_rt.export.cuda.shapes import dims, infer_shapes, integers

_LARGEST_GROUP = 512
"""The most channels that the kernel takes in a group, always an even number of them."""


def fuse_group_norm(model: ir.Model) -> None:
    """Replace GroupNormalization, with a SiLU after it, by GroupNorm in place.

    Raises UserError for groups that the kernel does not take.
    """
    graph = model.graph
    for node in list(graph):
        if node.op_type == "GroupNormalization" and node.domain == "":
            _fuse(graph, node)
    RemoveUnusedNodesPass()(model)
    infer_shapes(model)


def _fuse(graph: ir.Graph, node: ir.Node) -> None:
    source, gamma, beta = node.inputs[:3]
    sizes = dims(source)
    groups = node.attributes["num_groups"].as_int()
    if source is None or sizes is None or len(sizes) not in (3, 4):
        return
    channels = sizes[1]
    if isinstance(channels, int) and (
        channels // groups % 2 or channels // groups > _LARGEST_GROUP
    ):
        raise UserError(
            f"The CUDA engine cannot compute {node.name}, which has {channels // groups} channels "
            f"in a group: ONNX Runtime takes even numbers up to {_LARGEST_GROUP}; leave out "
            "`--target cuda`."
        )
    activated = _silu(node.outputs[0])
    last = activated or node
    made = _Chain(graph, last, source)
    ends = [0, *range(2, len(sizes)), 1]
    made.append("Transpose", {"perm": ends})
    if len(sizes) == 3:
        made.append("Unsqueeze", {}, integers(graph, [1]))
    attributes = {
        "groups": groups,
        "epsilon": node.attributes.get_float("epsilon", 1e-5),
        "activation": int(activated is not None),
        "channels_last": 1,
    }
    made.append("GroupNorm", attributes, gamma, beta, domain=MICROSOFT).name = node.name
    if len(sizes) == 3:
        made.append("Squeeze", {}, integers(graph, [1]))
    made.append("Transpose", {"perm": [0, len(sizes) - 1, *range(1, len(sizes) - 1)]})
    old = last.outputs[0]
    made.value.name, made.value.shape, made.value.type = old.name, old.shape, old.type
    ir.convenience.replace_nodes_and_values(graph, last, [last], [], [old], [made.value])


def _silu(value: ir.Value) -> ir.Node | None:
    """The product of `value` with its sigmoid, if nothing else reads `value`."""
    readers = value.consumers()
    if sorted(reader.op_type for reader in readers) != ["Mul", "Sigmoid"]:
        return None
    product, sigmoid = sorted(readers, key=lambda reader: reader.op_type)
    used = sigmoid.outputs[0].consumers()
    factors = set(product.inputs)
    return product if used == (product,) and factors == {value, sigmoid.outputs[0]} else None


class _Chain:
    """Nodes that follow each other, inserted before `place`."""

    def __init__(self, graph: ir.Graph, place: ir.Node, value: ir.Value) -> None:
        self._graph, self._place, self.value = graph, place, value

    def append(
        self, op: str, attributes: dict, *more: ir.Value | None, domain: str = ""
    ) -> ir.Node:
        node = ir.node(op, [self.value, *more], attributes, domain=domain)
        self._graph.insert_before(self._place, node)
        node.outputs[0].type = self.value.type
        self.value = node.outputs[0]
        return node
