"""Shapes that an engine computes on the host -> constants, or the shapes of its own tensors.

ONNX Runtime computes with shapes on the CPU, between the kernels of the GPU. All sizes but the
batch, and height and width where these are free, are known in advance. A shape that has to be read
is taken with one Shape from a tensor that has it: this alone is free, on either side.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx_ir as ir
from onnx_ir.passes.common import RemoveUnusedNodesPass, ShapeInferencePass

from synfer_rt.export.cuda.chain import Chain

Dims = tuple[int | str | None, ...]
"""Sizes of a tensor: a number, the name of a free size, or None where nothing is known."""


def dims(value: ir.Value | None) -> Dims | None:
    """The sizes of `value`; None if not even their count is known."""
    if value is None or value.shape is None:
        return None
    return tuple(d if isinstance(d, int) else d.value for d in value.shape)


def infer_shapes(model: ir.Model) -> None:
    """Give every value the type and the shape that follow from those of the inputs."""
    ShapeInferencePass()(model)


def constant(graph: ir.Graph, array: np.ndarray, name: str) -> ir.Value:
    """A new initializer; one of this name that is there already must be the same."""
    if name not in graph.initializers:
        tensor = ir.tensor(array, name=name)
        value = ir.Value(name=name, const_value=tensor, type=ir.TensorType(tensor.dtype))
        value.shape = ir.Shape(array.shape)
        graph.register_initializer(value)
    return graph.initializers[name]


def integers(graph: ir.Graph, numbers: Sequence[int]) -> ir.Value:
    """A vector of int64 as an initializer; equal ones are one."""
    name = "_".join(["integers", *(str(number).replace("-", "m") for number in numbers)])
    return constant(graph, np.array(numbers, np.int64), name)


def fix_shapes(model: ir.Model) -> None:
    """Give Reshape, Expand and Resize sizes that no operator on the host computes, in place.

    The values of `model` have shapes (infer_shapes).
    """
    graph = model.graph
    known = _KnownShapes(graph)
    for node in list(graph):
        if node.op_type == "Reshape":
            _fix_reshape(graph, node, known)
        elif node.op_type == "Expand":
            _fix_expand(graph, node, known)
        elif node.op_type == "Resize":
            _fix_resize(graph, node)
        for value in node.outputs if node.graph is graph else ():
            known.add(value)
    RemoveUnusedNodesPass()(model)


def infer_named_shapes(model: ir.Model) -> None:
    """Give every value its shape, in which a free size has the name that an input gives it.

    The exporter calls the same size otherwise behind the first operator.
    """
    graph = model.graph
    given = {size for value in graph.inputs for size in dims(value) or ()}
    declared = {value: value.shape for node in graph for value in node.outputs}
    for value in declared:
        if not value.is_graph_output():
            value.shape = None
    infer_shapes(model)
    names: dict[int | str | None, str] = {}
    for value, shape in declared.items():
        found = dims(value)
        value.shape = shape if shape is not None else value.shape
        for old, new in zip(dims(value) or (), found or (), strict=False):
            if isinstance(old, str) and isinstance(new, str) and new in given:
                names[old] = new
    for value in declared:
        if (sizes := dims(value)) is not None and not names.keys().isdisjoint(sizes):
            value.shape = ir.Shape([names.get(size, size) for size in sizes])
    infer_shapes(model)


class _KnownShapes:
    """The tensors that are computed so far, by shape and by batch."""

    def __init__(self, graph: ir.Graph) -> None:
        self._graph = graph
        self._by_shape: dict[Dims, ir.Value] = {}
        self._by_batch: dict[str, ir.Value] = {}
        self._read: dict[ir.Value, ir.Value] = {}
        self._rows: dict[tuple[str, int], ir.Value] = {}
        for value in graph.inputs:
            self.add(value)

    def add(self, value: ir.Value) -> None:
        sizes = dims(value)
        if not sizes or None in sizes:
            return
        self._by_shape.setdefault(sizes, value)
        if isinstance(sizes[0], str):
            self._by_batch.setdefault(sizes[0], value)

    def shape(self, sizes: Dims, reader: ir.Node) -> ir.Value | None:
        """The shape `sizes` as a tensor for `reader`, read from a tensor that has it."""
        value = self._by_shape.get(sizes) or self._part(sizes, reader)
        if value is None:
            return None
        if value not in self._read:
            self._read[value] = self._shape_of(value, sizes, reader)
        return self._read[value]

    def _shape_of(self, value: ir.Value, sizes: Dims, reader: ir.Node) -> ir.Value:
        """The shape of a tensor, read behind a Reshape that adds an axis.

        With `prefer_nhwc` ONNX Runtime moves transposes through the graph, and at a Shape they
        become arithmetic on the host, with copies to and from it. It moves none over a Reshape.
        """
        if value.is_graph_input():
            return self._insert(reader, "Shape", [value], [len(sizes)], "INT64")
        dtype = value.dtype.name if value.dtype else "FLOAT"
        column = integers(self._graph, [*[0] * (len(sizes) - 1), -1, 1])
        value = self._insert(reader, "Reshape", [value, column], [*sizes, 1], dtype)
        shape = self._insert(reader, "Shape", [value], [len(sizes)], "INT64")
        node = shape.producer()
        assert node is not None
        node.attributes.add(ir.AttrInt64("end", len(sizes)))
        return shape

    def _part(self, sizes: Dims, reader: ir.Node) -> ir.Value | None:
        """A part, of the shape `sizes`, of a tensor that is larger along one axis."""
        for known, value in self._by_shape.items():
            if len(known) != len(sizes) or value.dtype is None:
                continue
            axes = [i for i, pair in enumerate(zip(known, sizes, strict=True)) if len({*pair}) > 1]
            if len(axes) != 1:
                continue
            have, want = known[axes[0]], sizes[axes[0]]
            if isinstance(have, int) and isinstance(want, int) and have > want:
                span = [integers(self._graph, [number]) for number in (0, want, axes[0])]
                part = self._insert(reader, "Slice", [value, *span], list(sizes), value.dtype.name)
                self._by_shape[sizes] = part
                return part
        return None

    def batch(self, size: str, rank: int, reader: ir.Node) -> ir.Value | None:
        """The shape [size, 1, ...] of `rank` numbers as a tensor for `reader`."""
        source = self._by_batch.get(size)
        if source is None:
            return None
        if (size, rank) not in self._rows:
            dtype = source.dtype.name if source.dtype else "FLOAT"
            given = len(dims(source) or ())
            if given > 1:
                axes = list(range(1, given))
                starts, ends, at = (
                    integers(self._graph, numbers)
                    for numbers in ([0] * len(axes), [1] * len(axes), axes)
                )
                ones = [size, *[1] * len(axes)]
                source = self._insert(reader, "Slice", [source, starts, ends, at], ones, dtype)
            ones = [size, *[1] * (rank - 1)]
            shape = integers(self._graph, [-1, *ones[1:]])
            column = self._insert(reader, "Reshape", [source, shape], ones, dtype)
            self._rows[size, rank] = self._insert(reader, "Shape", [column], [rank], "INT64")
        return self._rows[size, rank]

    def _insert(
        self, reader: ir.Node, op: str, inputs: list[ir.Value], sizes: list, dtype: str
    ) -> ir.Value:
        node = ir.node(op, inputs)
        self._graph.insert_before(reader, node)
        node.outputs[0].shape = ir.Shape(sizes)
        node.outputs[0].type = ir.TensorType(ir.DataType[dtype])
        return node.outputs[0]


def _is_fixed(node: ir.Node, index: int) -> bool:
    """Whether the input `index` of a node is a constant."""
    value = node.inputs[index]
    return value is not None and ir.convenience.get_const_tensor(value) is not None


def _fix_reshape(graph: ir.Graph, node: ir.Node, known: _KnownShapes) -> None:
    before, after = dims(node.inputs[0]), dims(node.outputs[0])
    if _is_fixed(node, 1) or after is None:
        return
    free = [i for i, size in enumerate(after) if not isinstance(size, int)]
    sizes = [size if isinstance(size, int) else -1 for size in after]
    if len(free) > 1:
        for i in free:
            if before is not None and i < len(before) and before[i] == after[i] is not None:
                sizes[i] = 0  # as it was
    if sizes.count(-1) <= 1:
        node.replace_input_with(1, integers(graph, sizes))
        node.attributes.pop("allowzero", None)
    elif (shared := _shared_end(before, after)) > 0:
        _reshape_the_start(graph, node, shared)
    elif (shape := known.shape(after, node)) is not None:
        node.replace_input_with(1, shape)
        node.attributes.pop("allowzero", None)


def _shared_end(before: Dims | None, after: Dims) -> int:
    """How many last axes stay as they are, if no more than one of the others has a free size."""
    shared = 0
    for old, new in zip(reversed(before or ()), reversed(after), strict=False):
        if old != new or old is None:
            break
        shared += 1
    start = after[: len(after) - shared]
    return shared if sum(not isinstance(size, int) for size in start) <= 1 else 0


def _reshape_the_start(graph: ir.Graph, node: ir.Node, shared: int) -> None:
    """Reshape all axes but the last ones, which come first meanwhile: there 0 keeps them."""
    source, result = node.inputs[0], node.outputs[0]
    before, after = dims(source) or (), dims(result) or ()
    assert source is not None
    start = [size if isinstance(size, int) else -1 for size in after[: len(after) - shared]]
    made = Chain(graph, node, source)
    inner, outer = len(before) - shared, len(after) - shared
    made.append("Transpose", {"perm": [*range(inner, len(before)), *range(inner)]})
    made.append("Reshape", {}, integers(graph, [0] * shared + start))
    made.append("Transpose", {"perm": [*range(shared, shared + outer), *range(shared)]})
    made.replace(node)


def _fix_expand(graph: ir.Graph, node: ir.Node, known: _KnownShapes) -> None:
    before, after = dims(node.inputs[0]), dims(node.outputs[0])
    if _is_fixed(node, 1) or before is None or after is None:
        return
    if all(isinstance(size, int) for size in after):
        node.replace_input_with(1, integers(graph, [int(size or 0) for size in after]))
        return
    aligned = (*[1] * (len(after) - len(before)), *before)
    wider = [i for i, (old, new) in enumerate(zip(aligned, after, strict=True)) if old != new]
    if wider == [0] and isinstance(after[0], str):
        shape = known.batch(after[0], len(after), node)
    else:
        shape = known.shape(after, node)
    if shape is not None:
        node.replace_input_with(1, shape)


def _fix_resize(graph: ir.Graph, node: ir.Node) -> None:
    """Let Resize scale by constants where it takes the sizes of batch and channels as well."""
    before, after = dims(node.inputs[0]), dims(node.outputs[0])
    if len(node.inputs) < 4 or node.inputs[3] is None or _is_fixed(node, 3):
        return
    if before is None or after is None:
        return
    scales = []
    for old, new in zip(before, after, strict=True):
        if old == new:
            scales.append(1.0)
        elif isinstance(old, int) and isinstance(new, int) and new % old == 0:
            scales.append(new / old)
        else:
            return
    name = "_".join(["scales", *(f"{scale:g}" for scale in scales)])
    node.replace_input_with(2, constant(graph, np.array(scales, np.float32), name))
    node.replace_input_with(3, None)
