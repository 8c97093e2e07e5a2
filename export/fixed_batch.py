"""ONNX networks that were exported for one image -> the same for any number."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from onnx import numpy_helper

from synfer_rt.errors import UserError

from .sentences import first_line

_IMAGES = 3
_TOLERANCE = 1e-3
"""Of the largest score: a runtime may add up in another order for another batch."""


def with_free_batch(model: onnx.ModelProto, path: Path) -> onnx.ModelProto:
    """`model`, read from `path`, with the batch "B" in place of its fixed one.

    Its inputs and outputs say so, and its Reshape nodes leave open what was 1. Raises UserError for
    another batch than 1, and where three images together do not get the scores that each gets
    alone.
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
    _free_reshapes(free)
    try:
        fits = _agree(model, free)
        reason = "its scores for several images together are others than for each alone"
    except Exception as error:  # ONNX Runtime has a kind for every code of its own
        fits, reason = False, first_line(error)
    if not fits:
        raise UserError(
            f"{path} has the fixed batch 1, also within ({reason}); export it with a dynamic batch."
        )
    return free


def _free_reshapes(model: onnx.ModelProto) -> None:
    constants = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    for node in model.graph.node:
        if node.op_type == "Constant" and node.attribute[0].name == "value":
            constants[node.output[0]] = numpy_helper.to_array(node.attribute[0].t)
    for i, node in enumerate(model.graph.node):
        shape = constants.get(node.input[1]) if node.op_type == "Reshape" else None
        if shape is None or not shape.size or shape[0] != 1:
            continue
        # 0 keeps the batch of what is reshaped, where -1 stands for another axis already.
        opened = np.array([0 if -1 in shape else -1, *shape[1:]], np.int64)
        node.input[1] = f"free_batch_shape_{i}"
        model.graph.initializer.append(numpy_helper.from_array(opened, node.input[1]))


def _agree(fixed: onnx.ModelProto, free: onnx.ModelProto) -> bool:
    """Whether images together get the scores that each gets alone."""
    import onnxruntime

    options, providers = onnxruntime.SessionOptions(), ["CPUExecutionProvider"]
    options.log_severity_level = 4  # what it says of a failure stands in our sentence
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
