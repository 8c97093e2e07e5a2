"""The weights of a network by their parameters' names, out of its ONNX graph.

Exporters keep the names of most parameters, and lose those of weights that they transpose, reshape
or merge with equal ones. But nodes say in which layer they are, in one of two ways: TorchScript's
exporter names them by it (/down_blocks.0/attentions.0/proj_in/MatMul), and torch.export's notes the
scopes of each. What a node computes says which of the layer's parameters its constant is. Graphs
that synfer-rt writes have a list instead, PARAMETERS.
"""

from __future__ import annotations

import ast
import json
from collections.abc import Iterator, Mapping
from functools import cache
from typing import Any

import numpy as np
import onnx
from onnx import NodeProto, numpy_helper
from onnx.reference import ReferenceEvaluator
from torch import nn

PARAMETERS = "synfer_rt.parameters"
"""The key of a graph's metadata with a JSON object: the initializer of each parameter."""
TRANSPOSED = ".transposed"
"""What follows the name of an initializer there that is the transpose of the parameter."""
_SCOPES = "pkg.torch.onnx.name_scopes"
_OUTER = ("unet", "vae", "text_encoder", "text_model", "model")
"""Modules around a network, which one exporter or release has and another has not."""
_MOVES = ("Cast", "Identity", "Transpose", "Reshape", "Squeeze", "Unsqueeze", "DequantizeLinear")
"""Operators through which a weight reaches its layer."""
_BY_INPUT: Mapping[str, Mapping[int, str]] = {
    "Conv": {1: "weight", 2: "bias"},
    "Gemm": {1: "weight", 2: "bias"},
    "LayerNormalization": {1: "weight", 2: "bias"},
    "GroupNormalization": {1: "weight", 2: "bias"},
    "Gather": {0: "weight"},
}
"""Which parameter of its layer each input of an operator is."""
_NORMS = (nn.GroupNorm, nn.LayerNorm)
_POSITIONS = "embeddings.position_embedding.weight"


def parameters_of(model: onnx.ModelProto, network: nn.Module) -> dict[str, np.ndarray]:
    """The parameters of `network` that the graph holds, by their names there.

    The network's own values are not read, so it may be on the meta device. Parameters that the
    graph does not show are left out; `model` has all its weights.
    """
    graph = _Graph(model)
    wanted = {_inner(name): name for name, _ in network.named_parameters()}
    shapes = {name: tuple(value.shape) for name, value in network.named_parameters()}
    found: dict[str, np.ndarray] = {}

    def take(short: str, array: np.ndarray) -> None:
        name = wanted.get(short)
        if name is not None and name not in found and array.size == np.prod(shapes[name]):
            found[name] = array.reshape(shapes[name])

    for name, initializer in _noted(model).items():
        array = graph.tensors.get(initializer.removesuffix(TRANSPOSED))
        if array is not None:
            take(_inner(name), array.T if initializer.endswith(TRANSPOSED) else array)
    for name, array in graph.tensors.items():
        take(_inner(name), array)
    norms = {_inner(name) for name, part in network.named_modules() if isinstance(part, _NORMS)}
    for node in model.graph.node:
        scope = _scope_of(node)
        for short, array in _of_node(node, scope, scope in norms, graph):
            take(short, array)
    return found


def _noted(model: onnx.ModelProto) -> dict[str, str]:
    for entry in model.metadata_props:
        if entry.key == PARAMETERS:
            try:
                noted = json.loads(entry.value)
            except (ValueError, RecursionError):
                return {}
            return {str(k): str(v) for k, v in noted.items()} if isinstance(noted, dict) else {}
    return {}


class _Graph:
    """The constants of a graph by name; those that nodes make of others are computed when asked."""

    def __init__(self, model: onnx.ModelProto) -> None:
        self.tensors = {t.name: numpy_helper.to_array(t) for t in model.graph.initializer}
        self._opset = next(x.version for x in model.opset_import if x.domain in ("", "ai.onnx"))
        self._makers = {name: node for node in model.graph.node for name in node.output}
        self.constant = cache(self._constant)

    def _constant(self, name: str) -> np.ndarray | None:
        """The value called `name` if it is a weight, moved about or not; else None."""
        if name in self.tensors:
            return self.tensors[name]
        node = self._makers.get(name)
        if node is None or node.op_type not in (*_MOVES, "Constant"):
            return None
        given = {one: self.constant(one) for one in node.input if one}
        if any(value is None for value in given.values()):
            return None
        evaluator: Any = ReferenceEvaluator(node, opsets={"": self._opset})
        return np.asarray(evaluator.run(None, given)[0])


def _of_node(
    node: NodeProto, scope: str, is_norm: bool, graph: _Graph
) -> Iterator[tuple[str, np.ndarray]]:
    """The parameters that a node reads, by the names that its layer gives them."""
    if not scope:
        return
    values = map(graph.constant, node.input)
    constants = {i: value for i, value in enumerate(values) if value is not None}
    if node.op_type == "MatMul":
        for array in constants.values():
            yield f"{scope}.weight", array.T
    elif node.op_type == "Mul" and is_norm:
        for array in constants.values():
            yield f"{scope}.weight", array
    elif node.op_type == "Add":
        for array in constants.values():
            yield f"{scope}.bias", array
            if scope == "embeddings":  # the positions of CLIP, which the exporter looked up
                yield _POSITIONS, array
    for i, role in _BY_INPUT.get(node.op_type, {}).items():
        if i in constants:
            array = constants[i]
            if node.op_type == "Gemm" and role == "weight" and not _attribute(node, "transB"):
                array = array.T
            yield f"{scope}.{role}", array


def _attribute(node: NodeProto, name: str) -> int:
    return next((a.i for a in node.attribute if a.name == name), 0)


def _scope_of(node: NodeProto) -> str:
    """The layer that a node is in, without _OUTER; empty if nothing tells."""
    for entry in node.metadata_props:
        if entry.key == _SCOPES:
            try:
                scopes = [str(scope) for scope in ast.literal_eval(entry.value)]
            except (ValueError, SyntaxError):
                return ""
            return _inner(scopes[-2]) if len(scopes) > 1 else ""
    if not node.name.startswith("/"):
        return ""
    return _inner(".".join(node.name.split("/")[1:-1]))


def _inner(name: str) -> str:
    """A dotted name without the modules around the network."""
    parts = name.split(".")
    while len(parts) > 1 and parts[0] in _OUTER:
        del parts[0]
    return ".".join(parts)
