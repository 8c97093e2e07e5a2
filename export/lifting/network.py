"""An ONNX graph as a PyTorch module: autograd gives the gradient that ONNX does not have.

Values that do not depend on the input, such as weights, and those that depend on its shape alone
are computed by ONNX's own reference implementation; the others by the functions of OPERATORS.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, cast

import numpy as np
import onnx
import torch
from onnx import NodeProto, helper, inliner, numpy_helper
from onnx.reference import ReferenceEvaluator
from torch import Tensor, nn

from synfer_rt.errors import UserError
from synfer_rt.export.lifting.layers import LAYERS
from synfer_rt.export.lifting.mathematics import MATHEMATICS
from synfer_rt.export.lifting.operator import Attributes, Known, Operator, Unsupported
from synfer_rt.export.lifting.shapes import SHAPES
from synfer_rt.export.sentences import first_line, some

OPERATORS: Mapping[str, Operator] = {**MATHEMATICS, **LAYERS, **SHAPES}
"""The operators of ONNX (domain "") that are differentiated, by name."""
_OWN = ("", "ai.onnx")
_OF_SHAPES = ("Shape", "Size")
"""Operators that read the shape of their input alone."""


@dataclass(frozen=True)
class _Step:
    """One node of the graph, as the `opset` has its operator."""

    node: NodeProto
    opset: int

    @cached_property
    def attributes(self) -> Attributes:
        """The attributes by name."""
        values = {a.name: helper.get_attribute_value(a) for a in self.node.attribute}
        return Attributes(values, self.opset, len(self.node.output))

    @cached_property
    def _reference(self) -> ReferenceEvaluator:
        return ReferenceEvaluator(self.node, opsets={"": self.opset})

    def known(self, inputs: Sequence[Known | None]) -> list[Known]:
        """The outputs for inputs that are all known."""
        given = {name: value for name, value in zip(self.node.input, inputs, strict=True) if name}
        return [np.asarray(value) for value in cast(list[Any], self._reference.run(None, given))]


class OnnxNetwork(nn.Module):
    """The graph of `model` from its one input to the value called `output`.

    forward(input) -> output, both float32. The weights are buffers. Raises UserError for operators
    that have no derivative here, naming them; `place` is the file, for messages.
    """

    def __init__(self, model: onnx.ModelProto, output: str, place: str) -> None:
        super().__init__()
        model = inliner.inline_local_functions(model)
        (self.input,) = (value.name for value in model.graph.input)
        self.output, self.place = output, place
        opset = next(entry.version for entry in model.opset_import if entry.domain in _OWN)
        steps = [_Step(node, opset) for node in _needed(model.graph.node, output)]
        self._known = {t.name: numpy_helper.to_array(t) for t in model.graph.initializer}
        self._steps = [step for step in steps if not self._fold(step)]
        computed = self._computed_from_the_input()
        self._check(computed)
        self._buffers_of: dict[str, str] = {}
        for step in computed:
            self._keep_weights(step)
        kept = {name for step in self._steps for name in step.node.input}
        self._known = {name: value for name, value in self._known.items() if name in kept}

    def forward(self, given: Tensor) -> Tensor:
        """The value called `output`."""
        values: dict[str, Tensor | Known | None] = {"": None, **self._known, self.input: given}
        for step in self._steps:
            node = step.node
            inputs = [values[name] for name in node.input]
            if node.op_type in _OF_SHAPES and isinstance(inputs[0], Tensor):
                inputs[0] = np.broadcast_to(np.False_, tuple(inputs[0].shape))
            if any(isinstance(value, Tensor) for value in inputs):
                outputs: Sequence[Any] = self._outputs(step, inputs)
            else:
                outputs = self._known_outputs(step, inputs)  # type: ignore[arg-type]
            values.update(zip(node.output, outputs, strict=False))
        found = values[self.output]
        assert isinstance(found, Tensor)
        return found

    def _outputs(self, step: _Step, inputs: list[Tensor | Known | None]) -> Sequence[Tensor]:
        operator = OPERATORS[step.node.op_type]
        given: list[Any] = []
        for i, (name, value) in enumerate(zip(step.node.input, inputs, strict=True)):
            if i in operator.static and isinstance(value, Tensor):
                raise self._refusal(step.node, f"its input {i} is computed from the image")
            if i not in operator.static and isinstance(value, np.ndarray):
                buffer = self._buffers_of.get(name)
                given.append(_tensor(value) if buffer is None else getattr(self, buffer))
            else:
                given.append(value)
        try:
            found = operator.compute(step.attributes, *given)
        except Unsupported as error:
            raise self._refusal(step.node, str(error)) from None
        except Exception as error:  # PyTorch's for a form that ONNX has and PyTorch has not
            raise self._refusal(step.node, first_line(error)) from error
        return found if isinstance(found, (tuple, list)) else [found]

    def _fold(self, step: _Step) -> bool:
        """Compute a step whose inputs are all known."""
        names = [name for name in step.node.input if name]
        if any(name not in self._known for name in names):
            return False
        found = self._known_outputs(step, [self._known[n] if n else None for n in step.node.input])
        self._known.update(zip(step.node.output, found, strict=False))
        return True

    def _known_outputs(self, step: _Step, inputs: Sequence[Known | None]) -> list[Known]:
        try:
            return step.known(inputs)
        except Exception as error:  # each operator of the reference raises errors of its own
            raise self._refusal(step.node, first_line(error)) from error

    def _computed_from_the_input(self) -> list[_Step]:
        """The steps that read numbers of the input, and not its shape alone."""
        numbers, found = {self.input}, []
        for step in self._steps:
            if step.node.op_type not in _OF_SHAPES and not numbers.isdisjoint(step.node.input):
                numbers |= set(step.node.output)
                found.append(step)
        return found

    def _check(self, computed: Sequence[_Step]) -> None:
        odd = sorted({_title(s.node) for s in computed if not _differentiable(s.node)})
        if not odd:
            return
        remedy = "give a network without, or export it with other layers"
        if "QuantizeLinear" in odd:
            remedy = "give the network as it was in float, before it was quantized"
        elif any("." in name for name in odd):
            remedy = "export it with the operators of ONNX alone, before a runtime optimizes it"
        raise UserError(
            f"{self.place} computes with {some(odd, 5)}, of which synfer-rt knows no derivative; "
            f"{remedy}."
        )

    def _keep_weights(self, step: _Step) -> None:
        """Register known values that are tensors of an operator as buffers."""
        static = OPERATORS[step.node.op_type].static
        for i, name in enumerate(step.node.input):
            if i in static or name not in self._known or name in self._buffers_of:
                continue
            value = self._known[name]
            if value.ndim:
                self._buffers_of[name] = f"weight_{len(self._buffers_of)}"
                self.register_buffer(self._buffers_of[name], torch.tensor(value))

    def _refusal(self, node: NodeProto, why: str) -> UserError:
        return UserError(
            f"{self.place} has {_title(node)} in a form that cannot be differentiated ({why}); "
            "export the network with other layers."
        )


def _needed(nodes: Sequence[NodeProto], output: str) -> list[NodeProto]:
    """The nodes that `output` depends on, in order."""
    wanted, kept = {output}, []
    for node in reversed(nodes):
        if not wanted.isdisjoint(node.output):
            kept.append(node)
            wanted |= set(node.input)
    return kept[::-1]


def _differentiable(node: NodeProto) -> bool:
    return node.domain in _OWN and node.op_type in OPERATORS


def _title(node: NodeProto) -> str:
    return node.op_type if node.domain in _OWN else f"{node.domain}.{node.op_type}"


def _tensor(value: Known) -> Tensor | float | int | bool:
    return value.item() if value.ndim == 0 else torch.tensor(value)
