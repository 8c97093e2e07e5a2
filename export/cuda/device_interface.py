"""What a CUDA engine takes and gives where its ONNX engine would leave work to the host.

A step of the loop on the device uploads nothing: denoisers and guides read their row out of
tables of the whole trajectory. The decoder gives finished pixels, so that no image in float32 is
downloaded.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx_ir as ir

from synfer_rt.bundle.cuda import NEXT_STEP, STEP, TABLES
from synfer_rt.bundle.engine_specs import denoises
from synfer_rt.data.pixels import LEVEL

_NEW_NAMES = frozenset({STEP.name, NEXT_STEP.name, "pixels", "sound", *TABLES.values()})
_PREFIX = "device."
"""Begins the names of values that are neither inputs nor outputs."""


def give_device_interface(model: ir.Model, engine: str) -> None:
    """Change the inputs and outputs of the engine called `engine` to a CUDA engine's, in place.

    In denoisers and guides `timestep` [], `coefficients` [K+1, K+2] and `clean` [2] become
    tables of S steps, `timesteps` [S], `coefficients` [S, K+1, K+2] and `cleans` [S, 2], with the
    number of the step, `step` int64 [], as a further input. A denoiser also returns
    `next_step`, step + 1.

    The decoder, besides `images` float32 [B, 3, H, W], returns `pixels` uint8 [B, H, W, 3] and
    `sound` bool [B]; the three are `finite`, `in_8_bits` and `sound` of `synfer_rt.data.pixels`.
    The other engines stay as they are.
    """
    _free_names(model.graph)
    if denoises(engine) or engine.startswith("guide."):
        step = _read_tables(model.graph)
        if denoises(engine):
            _count_step(model.graph, step)
    elif engine == "decoder":
        _finish_images(model.graph)


def _free_names(graph: ir.Graph) -> None:
    """Rename the values within the graph that have a name of the new inputs and outputs."""
    outside = {*graph.inputs, *graph.outputs}
    inner = [value for node in graph.all_nodes() for value in node.outputs]
    for value in (*inner, *graph.initializers.values()):
        if value.name in _NEW_NAMES and value not in outside:
            value.name = f"{value.name}.inner"


def _read_tables(graph: ir.Graph) -> ir.Value:
    """Gather the inputs of a step out of tables; returns the input `step`."""
    step = _value(STEP.name, ir.DataType.INT64, [])
    for i, value in enumerate(list(graph.inputs)):
        name = str(value.name)
        if name not in TABLES:
            continue
        assert value.shape is not None and value.dtype is not None
        table = _value(TABLES[name], value.dtype, ["S", *value.shape])
        row = _operator("Gather", [table, step], f"{_PREFIX}{name}", axis=0)
        row.outputs[0].shape, row.outputs[0].type = value.shape, value.type
        ir.convenience.replace_all_uses_with(value, row.outputs[0])
        graph.inputs[i] = table
        graph.insert_before(graph[0], row)
    graph.inputs.append(step)
    return step


def _count_step(graph: ir.Graph, step: ir.Value) -> None:
    """Return the number of the next step."""
    one = _constant(graph, "one", np.array(1, np.int64))
    node = _operator("Add", [step, one], NEXT_STEP.name)
    node.outputs[0].shape, node.outputs[0].type = step.shape, step.type
    graph.append(node)
    graph.outputs.append(node.outputs[0])


def _finish_images(graph: ir.Graph) -> None:
    """Return the images as valid pixels, in float32 and in 8 bits, and whether each is sound."""
    place = next(i for i, value in enumerate(graph.outputs) if value.name == "images")
    raw = graph.outputs[place]
    raw.name = f"{_PREFIX}images"
    assert raw.shape is not None
    batch, channels, *area = raw.shape
    black, white = (
        _constant(graph, name, np.array(value, np.float32))
        for name, value in (("black", 0), ("white", 1))
    )

    def add(op: str, inputs: Sequence[ir.Value], name: str, **attributes: int | list[int]):
        output = name if name in ("images", *_NEW_NAMES) else f"{_PREFIX}{name}"
        node = _operator(op, inputs, output, **attributes)
        graph.append(node)
        return node.outputs[0]

    numbers = add("Where", [add("IsNaN", [raw], "is_nan"), black, raw], "numbers")
    images = add("Clip", [numbers, black, white], "images")
    most = _constant(graph, "levels", np.array(255, np.float32))
    rounded = add("Round", [add("Mul", [images, most], "scaled")], "rounded")
    levels = add("Cast", [rounded], "in_8_bits", to=int(ir.DataType.UINT8))
    pixels = add("Transpose", [levels], "pixels", perm=[0, 2, 3, 1])

    # A comparison is false for NaN. What reductions make of NaN and infinity is not the same
    # everywhere, so they see neither.
    largest = _constant(graph, "largest_float", np.array(np.finfo(np.float32).max, np.float32))
    valid = add("LessOrEqual", [add("Abs", [raw], "absolute"), largest], "is_finite")
    known = add("Where", [valid, raw, black], "finite")
    plane, image = (
        _constant(graph, f"axes_of_{name}", np.array(axes, np.int64))
        for name, axes in (("plane", [2, 3]), ("image", [1, 2, 3]))
    )
    high = add("ReduceMax", [known, plane], "highest", keepdims=0)
    low = add("ReduceMin", [known, plane], "lowest", keepdims=0)
    second = _constant(graph, "axis_of_channels", np.array([1], np.int64))
    span = add("ReduceMax", [add("Sub", [high, low], "spans"), second], "span", keepdims=0)
    step = _constant(graph, "level", np.array(LEVEL, np.float32))
    varies = add("GreaterOrEqual", [span, step], "varies")
    flags = add("Cast", [valid], "flags", to=int(ir.DataType.FLOAT))
    least = add("ReduceMin", [flags, image], "least_flag", keepdims=0)
    all_valid = add("Cast", [least], "all_finite", to=int(ir.DataType.BOOL))
    sound = add("And", [all_valid, varies], "sound")

    for value, dtype, shape in (
        (images, ir.DataType.FLOAT, [batch, channels, *area]),
        (pixels, ir.DataType.UINT8, [batch, *area, channels]),
        (sound, ir.DataType.BOOL, [batch]),
    ):
        value.type, value.shape = ir.TensorType(dtype), ir.Shape(shape)
    graph.outputs[place] = images
    graph.outputs.extend([pixels, sound])


def _value(name: str, dtype: ir.DataType, shape: Sequence[int | str | ir.SymbolicDim]) -> ir.Value:
    return ir.Value(name=name, type=ir.TensorType(dtype), shape=ir.Shape(shape))


def _operator(
    op: str, inputs: Sequence[ir.Value], output: str, **attributes: int | list[int]
) -> ir.Node:
    """A node called after its only output."""
    node = ir.node(op, inputs, attributes, name=f"{output}_node")
    node.outputs[0].name = output
    return node


def _constant(graph: ir.Graph, name: str, array: np.ndarray) -> ir.Value:
    tensor = ir.tensor(array, name=f"{_PREFIX}{name}")
    value = ir.Value(name=tensor.name, const_value=tensor, type=ir.TensorType(tensor.dtype))
    value.shape = ir.Shape(array.shape)
    graph.register_initializer(value)
    return value
