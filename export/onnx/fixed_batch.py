"""ONNX networks that were exported for one image -> the same networks for any batch."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import NodeProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from synfer_rt.errors import UserError
from synfer_rt.export.sentences import first_line

_FOLDED = {
    *("Constant", "ConstantOfShape", "Identity", "Cast", "Mul", "Equal", "Where", "Concat"),
    *("Unsqueeze", "Expand"),
}
"""The operators that exporters leave before a Reshape or an Expand to a known size."""
_IMAGES = 3
_TOLERANCE = 1e-3
"""Relative to the largest score: a runtime may sum in another order for another batch."""


def with_free_batch(model: onnx.ModelProto, path: Path) -> onnx.ModelProto:
    """`model`, read from `path`, with the batch "B" in place of its fixed one.

    The batch of its inputs and outputs is free, its Reshape nodes infer what was 1, and constants
    that are concatenated with values of an image, such as a class token, are repeated. Raises
    UserError for a fixed batch other than 1, and if three images together do not get the scores
    that each gets alone.
    """
    size = model.graph.input[0].type.tensor_type.shape.dim[0].dim_value
    if size != 1:
        raise UserError(f"{path} has the fixed batch {size}; export it with a dynamic batch.")
    free = onnx.ModelProto()
    free.CopyFrom(model)
    del free.graph.value_info[:]
    for value in (*free.graph.input, *free.graph.output):
        shape = value.type.tensor_type.shape
        if shape.dim and shape.dim[0].dim_value == 1:
            shape.dim[0].dim_param = "B"
    try:
        constants = _constants(free)
        _free_reshapes(free, constants)
        _repeat_joined(free, constants)
        fits = _agree(model, free)
        reason = "several images together get other scores than each alone"
    except Exception as error:  # ONNX Runtime and onnx's evaluator raise errors of their own
        fits, reason = False, first_line(error)
    if not fits:
        raise UserError(
            f"{path} has the fixed batch 1, also inside ({reason}); export it with a dynamic batch."
        )
    return free


def _constants(model: onnx.ModelProto) -> dict[str, np.ndarray]:
    """The model's constants by name, and the outputs of a few operators on constants alone."""
    constants = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    for node in model.graph.node:
        if node.op_type not in _FOLDED or not all(name in constants for name in node.input):
            continue
        output = helper.make_empty_tensor_value_info(node.output[0])
        given = [numpy_helper.from_array(constants[name], name) for name in {*node.input}]
        graph = helper.make_graph([node], "constant", [], [output], given)
        alone = helper.make_model(graph, opset_imports=model.opset_import)
        found: Any = ReferenceEvaluator(alone).run(None, {})
        constants[node.output[0]] = np.asarray(found[0])
    return constants


def _free_reshapes(model: onnx.ModelProto, constants: Mapping[str, np.ndarray]) -> None:
    for i, node in enumerate(model.graph.node):
        shape = constants.get(node.input[1]) if node.op_type == "Reshape" else None
        if shape is None or not shape.size or shape[0] != 1:
            continue
        # 0 keeps the batch of the input; it is needed if -1 is used for another axis.
        opened = np.array([0 if -1 in shape else -1, *shape[1:]], np.int64)
        node.input[1] = f"free_batch_shape_{i}"
        model.graph.initializer.append(numpy_helper.from_array(opened, node.input[1]))
        for attribute in [a for a in node.attribute if a.name == "allowzero"]:
            node.attribute.remove(attribute)


def _repeat_joined(model: onnx.ModelProto, constants: Mapping[str, np.ndarray]) -> None:
    """Repeat for each image the constants [1, ...] that a Concat joins with values of images."""
    repeats: dict[str, list[NodeProto]] = {}
    added: dict[str, np.ndarray] = {}
    of_images = {model.graph.input[0].name}
    for node in model.graph.node:
        if node.op_type == "Shape" or not any(name in of_images for name in node.input):
            continue
        of_images.update(node.output)
        if node.op_type != "Concat":
            continue
        axis = next(a.i for a in node.attribute if a.name == "axis")
        for i, name in enumerate(node.input):
            array = constants.get(name)
            if array is None or array.ndim < 2 or len(array) != 1 or axis % array.ndim == 0:
                continue
            one, rest, shape, rows = (
                f"free_batch/{name}/{part}" for part in ("one", "rest", "shape", "rows")
            )
            added |= {one: array, rest: np.ones(array.ndim - 1, np.int64)}
            node.input[i] = rows
            repeats[name] = [
                helper.make_node("Concat", ["free_batch", rest], [shape], axis=0),
                helper.make_node("Expand", [one, shape], [rows]),
            ]
    if not repeats:
        return
    added["free_batch_first"] = np.array([0])
    nodes = [
        helper.make_node("Shape", [model.graph.input[0].name], ["free_batch_sizes"]),
        helper.make_node("Gather", ["free_batch_sizes", "free_batch_first"], ["free_batch"]),
        *(node for pair in repeats.values() for node in pair),
        *model.graph.node,
    ]
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    model.graph.initializer.extend(numpy_helper.from_array(a, n) for n, a in added.items())


def _agree(fixed: onnx.ModelProto, free: onnx.ModelProto) -> bool:
    """Whether images together get the scores that each gets alone."""
    import onnxruntime

    options, providers = onnxruntime.SessionOptions(), ["CPUExecutionProvider"]
    options.log_severity_level = 4  # the error message has the reason of a failure
    one, many = (
        onnxruntime.InferenceSession(model.SerializeToString(), options, providers=providers)
        for model in (fixed, free)
    )
    entry = one.get_inputs()[0]
    sizes = [size if isinstance(size, int) else 32 for size in entry.shape[1:]]
    images = np.random.default_rng(0).random((_IMAGES, *sizes), np.float32)
    together = many.run(None, {entry.name: images})
    alone = [one.run(None, {entry.name: image[None]}) for image in images]
    for found, *parts in zip(together, *alone, strict=True):
        wanted = np.concatenate([np.asarray(part) for part in parts])
        bound = _TOLERANCE * max(np.abs(wanted).max(), 1e-6)
        if np.shape(found) != wanted.shape or np.abs(found - wanted).max() > bound:
            return False
    return True
