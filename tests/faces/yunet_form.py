"""A file of YuNet's form that finds red squares, for tests of what is done with its faces."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper
from PIL import Image

from synfer_rt.data.datasets import read_dataset
from synfer_rt.data.datasets.items import load
from synfer_rt.faces.alignment import Aligner

POINTS = (0.3, 0.35, 0.7, 0.35, 0.5, 0.55, 0.35, 0.75, 0.65, 0.75)
"""The points of a face in its square, as shares of its side: x and y in turn."""


def write_red_finder(file: Path, side: int | str = "side") -> Path:
    """A detector for squares of `side`: each square of 32 pixels that is all red is a face."""
    nodes, outputs = [], []
    constants = {"share": [1 / 255], "nothing": [0.0], "box": [0.5, 0.5, 0.0, 0.0]}
    constants["points"] = list(POINTS)
    nodes.append(helper.make_node("Split", ["input"], ["b", "g", "r"], axis=1, num_outputs=3))
    nodes.append(helper.make_node("Sub", ["r", "g"], ["redder"]))
    nodes.append(helper.make_node("Relu", ["redder"], ["red"]))
    for stride in (8, 16, 32):
        window = [stride, stride]
        mean = helper.make_node(
            "AveragePool", ["red"], [f"mean{stride}"], kernel_shape=window, strides=window
        )
        nodes.append(mean)
        nodes.append(helper.make_node("Reshape", [f"mean{stride}", "rows"], [f"flat{stride}"]))
        factor = "share" if stride == 32 else "nothing"
        for kind in ("cls", "obj"):
            nodes.append(helper.make_node("Mul", [f"flat{stride}", factor], [f"{kind}_{stride}"]))
        nodes.append(helper.make_node("Mul", [f"flat{stride}", "nothing"], [f"zero{stride}"]))
        for kind, constant in (("bbox", "box"), ("kps", "points")):
            name = f"{kind}_{stride}"
            nodes.append(helper.make_node("Add", [f"zero{stride}", constant], [name]))
    for kind, width in (("cls", 1), ("obj", 1), ("bbox", 4), ("kps", 10)):
        outputs += [
            helper.make_tensor_value_info(f"{kind}_{s}", TensorProto.FLOAT, [1, "n", width])
            for s in (8, 16, 32)
        ]
    tensors = [
        helper.make_tensor(name, TensorProto.FLOAT, [len(values)], values)
        for name, values in constants.items()
    ]
    tensors.append(helper.make_tensor("rows", TensorProto.INT64, [3], [1, -1, 1]))
    seen = helper.make_tensor_value_info("input", TensorProto.FLOAT, [1, 3, side, side])
    graph = helper.make_graph(nodes, "red", [seen], outputs, tensors)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    onnx.save(model, file)
    return file


def put_picture(file: Path, corners: Sequence[tuple[int, int]], number: int = 0) -> None:
    """A picture of 512 pixels with a face at each of `corners`, multiples of 32: (left, top).

    Each face has a corner of its own, by `number`.
    """
    pixels = np.full((512, 512, 3), (0, 90, 160), np.uint8)
    for left, top in corners:
        pixels[top : top + 32, left : left + 32] = (255, 0, 0)
        pixels[top + 20 : top + 26, left + 2 : left + 6 + 2 * number] = (255, 0, number)
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(file)


def put_aligned(root: Path, out: Path, size: tuple[int, int], aligner: Aligner) -> None:
    """The aligned faces of the images in `root`, in files of the same names in `out`."""
    for item in read_dataset(root).items:
        image = load(item, size, aligner)
        if isinstance(image, np.ndarray):
            file = out / item.name
            file.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(np.rint(image.transpose(1, 2, 0) * 255).astype(np.uint8)).save(file)
