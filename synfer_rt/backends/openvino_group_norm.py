"""Group normalisation for OpenVINO's CPU plugin, written so that images stay channels last.

Convolutions run channels last there, and the plugin's group normalisation (seen in 2026.4) channels
first: it has each of them reorder an image twice. Means over single channels can be taken in any
order of memory, and those over a group from them. The variance is that of the differences from the
mean (Wu and He, arXiv 1803.08494, equation 2), in two passes.
"""

from __future__ import annotations

from typing import Any, cast

import numpy as np

_IMAGE_RANK = 4
_ROWS_COLUMNS = (2, 3)


def by_channel(model: Any) -> None:
    """Replace, in place, the group normalisations of a model's images [B, C, H, W]."""
    for node in model.get_ordered_ops():
        if node.get_type_name() != "GroupNormalization":
            continue
        shape = node.get_input_partial_shape(0)
        if shape.rank.get_length() != _IMAGE_RANK or shape[1].is_dynamic:
            continue
        normalised = _normalised(node, shape[1].get_length())
        for reader in node.output(0).get_target_inputs():
            reader.replace_source_output(normalised.output(0))


def _normalised(node: Any, channels: int) -> Any:
    """The images [B, C, H, W] that a group normalisation gives."""
    from openvino import opset13

    op = cast(Any, opset13)
    images, scale, bias = (node.input_value(i) for i in range(3))
    settings = node.get_attributes()
    groups = settings["num_groups"]

    def mean(of: Any) -> Any:
        """The mean over each group, [B, C, 1, 1]."""
        each = op.reduce_mean(of, _whole(_ROWS_COLUMNS), True)
        each = op.reshape(each, _whole((0, groups, channels // groups, 1)), True)
        group = op.tile(
            op.reduce_mean(each, _whole((2,)), True), _whole((1, 1, channels // groups, 1))
        )
        return op.reshape(group, _whole((0, channels, 1, 1)), True)

    def by_channel(vector: Any) -> Any:
        return op.reshape(vector, _whole((1, channels, 1, 1)), False)

    centred = op.subtract(images, mean(images))
    variance = mean(op.multiply(centred, centred))
    epsilon = op.constant(np.float32(settings["epsilon"]))
    factor = op.divide(by_channel(scale), op.sqrt(op.add(variance, epsilon)))
    return op.add(op.multiply(centred, factor), by_channel(bias))


def _whole(numbers: tuple[int, ...]) -> Any:
    from openvino import opset13

    return cast(Any, opset13).constant(np.array(numbers, np.int64))
