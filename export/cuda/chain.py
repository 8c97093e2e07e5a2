"""Operators that follow each other, put into a graph."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import onnx_ir as ir

MICROSOFT = "com.microsoft"
"""The domain of ONNX Runtime's own operators."""


class Chain:
    """Operators before the node `place`, each of which takes the output of the one before.

    `value` is the last output.
    """

    def __init__(self, graph: ir.Graph, place: ir.Node, value: ir.Value) -> None:
        self._graph, self._place, self.value = graph, place, value

    def append(
        self,
        op: str,
        attributes: Mapping[str, Any],
        *more: ir.Value | None,
        domain: str = "",
        dtype: ir.DataType | None = None,
        outputs: int = 1,
    ) -> ir.Node:
        """Add an operator with `value` and `more` as inputs.

        Its outputs have the type `dtype`, by default that of `value`; those of a Cast its own.
        """
        node = ir.node(op, [self.value, *more], attributes, domain=domain, num_outputs=outputs)
        self._graph.insert_before(self._place, node)
        kind = ir.DataType(attributes["to"]) if op == "Cast" else dtype or self.value.dtype
        for value in node.outputs:
            value.type = ir.TensorType(kind) if kind is not None else None
        self.value = node.outputs[0]
        return node

    def replace(self, node: ir.Node) -> None:
        """Let `value` take the place of the first output of `node`, which is removed."""
        old, new = node.outputs[0], self.value
        new.name, new.shape, new.type = old.name, old.shape, old.type
        ir.convenience.replace_nodes_and_values(self._graph, node, [node], [], [old], [new])
