"""PyTorch module -> ONNX file with a dynamic batch (and size), weights in fp32 or fp16."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

import onnx_ir as ir
import torch
from onnx_ir.passes.common import ClearMetadataAndDocStringPass
from torch import Tensor, nn
from torch._dynamo.exc import UserError as ExportError
from torch.export import Dim

from synfer_rt.bundle.engine_specs import BATCH, SPATIAL
from synfer_rt.errors import UserError
from synfer_rt.export.onnx.model_file import INLINE_BYTES

OPSET = 21
"""The newest opset that keeps GroupNormalization as one operator and that TensorRT-RTX compiles."""

MAX_BATCH = 4096
_MAX_STEPS = 1 << 16
_SMALL = 1024
_HALF_MAX = 65504.0


def export_onnx(
    module: nn.Module,
    inputs: Mapping[str, Tensor],
    outputs: tuple[str, ...],
    static: frozenset[str],
    path: Path,
    precision: str,
    free_axes: Mapping[str, int] | None = None,
    optional: frozenset[str] = frozenset(),
) -> None:
    """Write `module` to `path`; its inputs and outputs stay float32 (or int64).

    `inputs` are the forward's arguments in order, with a batch of at least 2; those not named in
    `static` have the batch as first dimension. `precision` is "fp32" or "fp16", how weights are
    stored: they are cast to float32 where they are used, which the runtime does once when it loads.
    `free_axes` are the heights and widths (engine_specs.SPATIAL) that stay free, with the number of
    which each is a multiple; without them the size is that of `inputs`. Those inputs of `optional`
    that the graph does not read are left out of it. Raises UserError if the graph would fix the
    batch or a free axis.
    """
    free_axes = free_axes or {}
    dims = {BATCH: Dim(BATCH, min=1, max=MAX_BATCH)}
    for axis, step in free_axes.items():
        # H and h are the same axis in two engines, and no module has both as inputs.
        dims[axis] = step * Dim(f"steps_{axis}", min=1, max=_MAX_STEPS)
    shapes = tuple(
        {i: dims[axis] for i, axis in _free(name, value.ndim, static, free_axes).items()}
        for name, value in inputs.items()
    )
    with torch.no_grad():
        try:
            program = torch.export.export(
                module, tuple(inputs.values()), dynamic_shapes=_as_signature(module, shapes)
            )
        except ExportError as error:
            raise UserError(
                f"The {path.stem} of this checkpoint cannot be exported with a free batch or size: "
                f"{str(error).strip().splitlines()[0]}; report its architecture as an issue."
            ) from error
        exported = to_onnx(program, inputs, outputs)
    model = exported.model
    weights = list(model.graph.initializers.values())
    exported.optimize()
    weights += model.graph.initializers.values()
    clear_metadata(model)
    for value in [v for v in model.graph.inputs if v.name in optional and not v.uses()]:
        model.graph.inputs.remove(value)
    _name_axes(model, static, free_axes, path.stem)
    if precision == "fp16":
        store_half(model.graph)
    save(model, path)
    # The optimizer's rules keep the last graph, and with it every weight would stay in memory.
    for value in (*weights, *model.graph.initializers.values()):
        value.const_value = None


def to_onnx(
    program: torch.export.ExportedProgram, inputs: Iterable[str], outputs: Iterable[str]
) -> torch.onnx.ONNXProgram:
    """`program` in ONNX, not optimized, its inputs and outputs named in order."""
    exported = torch.onnx.export(
        program,
        dynamo=True,
        opset_version=OPSET,
        input_names=list(inputs),
        output_names=list(outputs),
        verbose=False,
        optimize=False,
    )
    assert exported is not None
    return exported


def clear_metadata(model: ir.Model) -> None:
    """Remove the exporter's notes about source code, in place."""
    ClearMetadataAndDocStringPass()(model)
    model.metadata_props.clear()
    model.graph.metadata_props.clear()


def save(model: ir.Model, path: Path) -> None:
    """Write an ONNX model, the weights beside it in `<path>.data` when they are large."""
    weights = model.graph.initializers.values()
    size = sum(v.const_value.nbytes for v in weights if v.const_value is not None)
    external = f"{path.name}.data" if size > INLINE_BYTES else None
    ir.save(model, path, external_data=external)


def store_half(graph: ir.Graph) -> None:
    """Keep the large float32 weights of `graph` as float16 behind a Cast, in place.

    Vectors (biases, norms) and small tables stay float32: they are small, and rounding them costs
    most. So do weights outside float16's range.
    """
    first = graph[0]
    for name, value in list(graph.initializers.items()):
        tensor = value.const_value
        if tensor is None or tensor.dtype != ir.DataType.FLOAT or len(tensor.shape) < 2:
            continue
        array = tensor.numpy()
        if array.size < _SMALL or max(array.max(), -array.min()) > _HALF_MAX:
            continue
        half = ir.Value(
            name=f"{name}.half",
            const_value=_half(tensor, f"{name}.half"),
            shape=value.shape,
            type=ir.TensorType(ir.DataType.FLOAT16),
        )
        cast = ir.node("Cast", [half], {"to": ir.DataType.FLOAT.value}, name=f"{name}.cast")
        cast.outputs[0].type, cast.outputs[0].shape = value.type, value.shape
        ir.convenience.replace_all_uses_with(value, cast.outputs[0])
        del graph.initializers[name]
        cast.outputs[0].name = name
        graph.register_initializer(half)
        graph.insert_before(first, cast)


def _half(tensor: ir.TensorProtocol, name: str) -> ir.LazyTensor:
    """`tensor` in float16, converted when it is written, so that never all are in memory."""
    return ir.LazyTensor(
        lambda: ir.Tensor(tensor.numpy().astype("float16"), name=name),
        dtype=ir.DataType.FLOAT16,
        shape=ir.Shape(tensor.shape.numpy()),
        name=name,
    )


def _as_signature(module: nn.Module, shapes: tuple[dict, ...]) -> tuple:
    """Group the shapes as in the forward's signature: a *parameter takes a tuple of them."""
    code = module.forward.__code__
    named = code.co_argcount - 1
    varargs = bool(code.co_flags & 0x04)
    return (*shapes[:named], shapes[named:]) if varargs else shapes


def _free(
    name: str, rank: int, static: frozenset[str], free_axes: Mapping[str, int]
) -> dict[int, str]:
    """The free dimensions of an input or output, and their names."""
    axes = {} if name in static else {0: BATCH}
    for i, axis in enumerate(SPATIAL.get(name, ()), rank - 2):
        if axis in free_axes:
            axes[i] = axis
    return axes


def _name_axes(
    model: ir.Model, static: frozenset[str], free_axes: Mapping[str, int], engine: str
) -> None:
    """Give the free dimensions of inputs and outputs their names; they must be symbolic."""
    for value in (*model.graph.inputs, *model.graph.outputs):
        assert value.name is not None and value.shape is not None
        shape: list[ir.SymbolicDim | int | str] = list(value.shape)
        for i, axis in _free(value.name, len(shape), static, free_axes).items():
            if not isinstance(shape[i], ir.SymbolicDim):
                raise UserError(
                    f"The exporter fixed the {axis} of {value.name} of the {engine} at "
                    f"{shape[i]}; report the checkpoint's architecture as an issue."
                )
            shape[i] = axis
        value.shape = ir.Shape(shape)
