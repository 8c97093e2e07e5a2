"""Resizing images within a graph as Pillow does: one matrix for each of the two axes.

Networks are trained on images that were reduced with antialiasing: a new pixel is an average over
the pixels that it covers. ONNX's Resize has antialiasing only from opset 18 on, and not every
runtime applies it. Matrix products mean the same everywhere, and have a gradient.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from onnx import NodeProto, TensorProto, helper
from PIL import Image

from synfer_rt.networks.resampling import matrix


def resized(images: np.ndarray, size: int) -> np.ndarray:
    """Images float32 [B, C, H, W] resized to [B, C, size, size] by Pillow itself, bilinearly."""
    how = (size, size), Image.Resampling.BILINEAR
    planes = [[Image.fromarray(plane).resize(*how) for plane in image] for image in images]
    return np.array([[np.asarray(plane) for plane in image] for image in planes])


def resize(
    images: str, output: str, image_size: Sequence[int | str], size: int
) -> tuple[list[NodeProto], Mapping[str, np.ndarray]]:
    """Nodes of opset 13 from `images` [B, C, H, W] to `output` [B, C, size, size], and constants.

    They resize bilinearly. In `image_size`, (H, W), a number is a fixed length and a name a free
    one, for which the weights are computed from the shape of the input.
    """
    nodes: list[NodeProto] = []
    constants: dict[str, np.ndarray] = {}
    for axis, old in enumerate(image_size, 2):
        weights, last = f"resize_weights_{axis}", nodes[-1].output[0] if nodes else images
        if isinstance(old, str):
            nodes += _weights(images, axis, size, weights)
            constants |= _NUMBERS | {
                "resize_size": np.array(size),
                "resize_odd": (2 * np.arange(size) + 1)[:, None],
                f"resize_axis_{axis}": np.array(axis),
            }
        else:
            constants[weights] = matrix(old, size, Image.Resampling.BILINEAR)
        # The weights are on the left, where quantization does not look for weights.
        nodes += [
            _node("MatMul", [weights, last], f"resize_product_{axis}"),
            _node("Transpose", [f"resize_product_{axis}"], f"resize_{axis}", perm=[0, 1, 3, 2]),
        ]
    nodes[-1].output[0] = output
    return nodes, constants


_NUMBERS = {
    "resize_0": np.array(0),
    "resize_1": np.array(1),
    "resize_one": np.array(1, np.float32),
    "resize_two": np.array(2, np.float32),
    "resize_row": np.array([1]),
}


def _weights(images: str, axis: int, new: int, output: str) -> list[NodeProto]:
    """Nodes that compute the matrix [new, old] for the length `old` of the images' `axis`.

    In the new pixel i, pixel j has the weight
    max(0, 1 - |j + 1/2 - (i + 1/2) * old / new| / max(old / new, 1)): a triangle as wide as two new
    pixels, or two old ones if these are larger. Rows are divided by their sum, since pixels beyond
    the edge are missing. Distances are multiplied by 2 * new, so that they are differences of whole
    numbers, which float32 holds exactly up to 2^24. Stored numbers are int64, since weights may be
    stored as float16.
    """

    def made(name: str) -> str:
        return f"{output}_{name}"

    float32: dict[str, Any] = {"to": TensorProto.FLOAT}
    return [
        _node("Shape", [images], made("shape")),
        _node("Gather", [made("shape"), f"resize_axis_{axis}"], made("old"), axis=0),
        _node("Range", ["resize_0", made("old"), "resize_1"], made("numbers")),
        _node("Cast", [made("numbers")], made("pixels"), **float32),
        _node("Cast", [made("old")], made("length"), **float32),
        _node("Cast", ["resize_size"], made("new"), **float32),
        _node("Cast", ["resize_odd"], made("centres"), **float32),
        _node("Mul", [made("pixels"), "resize_two"], made("doubled")),
        _node("Add", [made("doubled"), "resize_one"], made("odd")),
        _node("Mul", [made("odd"), made("new")], made("here")),
        _node("Mul", [made("centres"), made("length")], made("there")),
        _node("Sub", [made("here"), made("there")], made("difference")),
        _node("Abs", [made("difference")], made("distance")),
        _node("Max", [made("length"), made("new")], made("wider")),
        _node("Mul", [made("wider"), "resize_two"], made("reach")),
        _node("Div", [made("distance"), made("reach")], made("far")),
        _node("Sub", ["resize_one", made("far")], made("near")),
        _node("Relu", [made("near")], made("triangle")),
        _node("ReduceSum", [made("triangle"), "resize_row"], made("sum"), keepdims=1),
        _node("Div", [made("triangle"), made("sum")], output),
    ]


def _node(op: str, inputs: Sequence[str], output: str, **attributes: Any) -> NodeProto:
    return helper.make_node(op, inputs, [output], name=output, **attributes)
