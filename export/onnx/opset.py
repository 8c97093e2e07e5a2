"""Old ONNX files, converted to an opset that the other nodes of an engine can use."""

from __future__ import annotations

import onnx
from onnx import helper, version_converter

MINIMUM = 13
_IR_VERSION = 4
"""From this version of the intermediate representation on, weights need not be inputs."""


def opset_of(model: onnx.ModelProto) -> int:
    """The version of ONNX's own operators that a model uses."""
    return next(entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx"))


def without_weights_among_inputs(model: onnx.ModelProto) -> onnx.ModelProto:
    """`model`, changed in place: weights are no longer among its inputs, as in newer files."""
    weights = {tensor.name for tensor in model.graph.initializer}
    for value in [value for value in model.graph.input if value.name in weights]:
        model.graph.input.remove(value)
    model.ir_version = max(model.ir_version, _IR_VERSION)
    return model


def at_least_minimum(model: onnx.ModelProto) -> onnx.ModelProto:
    """The same network in opset `MINIMUM` or later.

    Raises the errors of onnx's converter for a model that it cannot convert.
    """
    old = opset_of(model)
    if old >= MINIMUM:
        return model
    converted = version_converter.convert_version(model, MINIMUM)
    if old < 11:
        _keep_old_sampling_points(converted)
    return converted


def _keep_old_sampling_points(model: onnx.ModelProto) -> None:
    """Let Resize sample at output / scale, as Upsample and Resize did before opset 11.

    The converter (onnx 1.23.2) leaves the attributes of opset 11 at their defaults, which sample
    half a pixel away.
    """
    for node in model.graph.node:
        if node.op_type == "Resize":
            node.attribute.append(
                helper.make_attribute("coordinate_transformation_mode", "asymmetric")
            )
            node.attribute.append(helper.make_attribute("nearest_mode", "floor"))
