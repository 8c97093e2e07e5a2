"""Old ONNX files, rewritten for an operator set that the rest of an engine can join."""

from __future__ import annotations

import onnx
from onnx import helper, version_converter

MINIMUM = 13
_IR_VERSION = 4
"""From this intermediate representation on weights need not stand among the inputs."""


def opset_of(model: onnx.ModelProto) -> int:
    """The version of ONNX's own operators that a model uses."""
    return next(entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx"))


def without_weights_among_inputs(model: onnx.ModelProto) -> onnx.ModelProto:
    """`model`, changed in place: its inputs are what it is given, as in newer files."""
    weights = {tensor.name for tensor in model.graph.initializer}
    for value in [value for value in model.graph.input if value.name in weights]:
        model.graph.input.remove(value)
    model.ir_version = max(model.ir_version, _IR_VERSION)
    return model


def at_least_minimum(model: onnx.ModelProto) -> onnx.ModelProto:
    """The same network with operators of version `MINIMUM` or later.

    Raises whatever onnx's converter does for a model that it cannot rewrite.
    """
    old = opset_of(model)
    if old >= MINIMUM:
        return model
    converted = version_converter.convert_version(model, MINIMUM)
    if old < 11:
        _keep_old_sampling_points(converted)
    return converted


def _keep_old_sampling_points(model: onnx.ModelProto) -> None:
    """Let Resize sample where Upsample and Resize did before version 11, at output / scale.

    The converter (onnx 1.23.2) leaves the attributes of version 11 at their defaults, whose points
    lie half a pixel from these.
    """
    for node in model.graph.node:
        if node.op_type == "Resize":
            node.attribute.append(
                helper.make_attribute("coordinate_transformation_mode", "asymmetric")
            )
            node.attribute.append(helper.make_attribute("nearest_mode", "floor"))
