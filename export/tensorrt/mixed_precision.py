"""float32 graph -> one that multiplies in float16 and keeps the sensitive parts in float32.

The fp16 files of a bundle store weights in float16 and compute in float32. A strongly typed
compiler such as TensorRT's uses the types of the graph as they are, so the casts must be in it. The
choice of what is computed in float16 follows Micikevicius et al. (arXiv 1710.03740).
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from pathlib import Path

import numpy as np
import onnx_ir as ir
from onnx_ir.passes.common import RemoveUnusedNodesPass, ShapeInferencePass

from synfer_rt.export.onnx.shared_weights import tensor_array

GUIDANCE_INPUT, SOLVER_INPUT = "guidance", "coefficients"
"""The algebra of guidance and solver depends on these; its errors would add up over the steps."""

_PRODUCTS = frozenset({"Conv", "ConvTranspose", "Gemm", "MatMul"})
_ARITHMETIC = frozenset({"Add", "Sub", "Mul", "Div"})
_ACTIVATIONS = frozenset(
    {"Clip", "Elu", "Gelu", "HardSwish", "LeakyRelu", "Neg", "PRelu", "Relu", "Sigmoid", "Tanh"}
)
_Stores = Callable[[ir.TensorProtocol], bool]
_Moves = Mapping[str, tuple[int, ...] | None]
_MOVES: _Moves = {
    **dict.fromkeys(("Concat", "Max", "Min")),
    **dict.fromkeys(("DepthToSpace", "Expand", "Flatten", "Gather", "Identity", "MaxPool"), (0,)),
    **dict.fromkeys(("Reshape", "Resize", "Slice", "SpaceToDepth", "Split", "Squeeze"), (0,)),
    **dict.fromkeys(("Tile", "Transpose", "Unsqueeze"), (0,)),
    "Pad": (0, 2),
    "Where": (1, 2),
}
"""Operators that select or move numbers, with the inputs that share the output's type; None: all.

These and the sets above may be float16. All other operators stay float32: statistics of
normalisations, softmax, sines of the timestep, powers, roots, reductions, and unknown operators.
"""
_ROUNDING = _PRODUCTS | _ARITHMETIC | _ACTIVATIONS
_SMALLEST, _LARGEST = float(np.finfo(np.float16).tiny), float(np.finfo(np.float16).max)


def compute_half(source: Path, out: Path) -> None:
    """Write the engine file `source` to `out` (weights to `<out>.data`) computing in float16.

    Float16 is used between the first and the last product (convolution, matrix product); inputs and
    outputs keep their types. Weights may be stored in float32, or in float16 behind Casts; large
    weights are streamed, so that they are never in memory together.
    """
    model = ir.load(source)
    if any(v.dtype is None for node in model.graph for v in node.outputs):
        ShapeInferencePass()(model)
    spell_out_solver(model.graph)
    halve(model)
    ir.save(model, out, external_data=f"{out.name}.data")


def spell_out_solver(graph: ir.Graph) -> None:
    """Write the solver's product of coefficients and stack as a sum of products, in place.

    A GPU would round the factors of a float32 product to TF32, and sum in an order that depends on
    the batch.
    """
    for node in _exact_nodes(graph):
        if node.op_type == "MatMul":
            _spell_out_product(graph, node)


def halve(
    model: ir.Model,
    fused: _Moves | None = None,
    stores: _Stores = lambda tensor: True,
) -> None:
    """Let `model`, whose values have types, compute in float16 as described above, in place.

    `fused` are more operators that may be float16, with the inputs that share the output's type, as
    in _MOVES. Constants for which `stores` is false are cast in the graph instead of in the file.
    """
    graph = model.graph
    moves = {**_MOVES, **(fused or {})}
    exact = _exact_nodes(graph)
    half = _half_nodes(graph, exact, moves)
    halves = _Casts(graph, ir.DataType.FLOAT16, stores)
    floats = _Casts(graph, ir.DataType.FLOAT, stores)
    from_half = {value for node in half for value in node.outputs if _is_float(value)}
    for node in list(graph):
        inside = node in half
        shared = _shared_inputs(node, moves) if inside else range(len(node.inputs))
        for i in shared if node.op_type != "Shape" else ():
            value = node.inputs[i]
            if value is None or not _is_float(value) or (value in from_half) == inside:
                continue
            node.replace_input_with(i, (halves if inside else floats).of(value))
    for i, value in enumerate(graph.outputs):
        if value in from_half:
            name, value.name = value.name, f"{value.name}.half"
            graph.outputs[i] = floats.of(value)
            graph.outputs[i].name = name
    for value in from_half:
        value.type = ir.TensorType(ir.DataType.FLOAT16)
    RemoveUnusedNodesPass()(model)


def error_of_half(source: Path, half: Path, inputs: Mapping[str, np.ndarray]) -> float:
    """The largest error of `half` over its outputs, relative to the largest value of `source`'s.

    Both run on ONNX Runtime's CPU provider, one after the other. The provider computes neighbouring
    float16 nodes in float32 without rounding between them, which hides overflows. So `half` is run
    with its roundings written out as nodes, and with products accumulated in float32, as on GPUs.
    """
    rounded = half.with_suffix(".rounded.onnx")
    model = ir.load(half)
    spell_out_roundings(model.graph)
    ir.save(model, rounded)  # the weights stay in the external data of `half`
    try:
        wanted, found = (_run(file, inputs) for file in (source, rounded))
    finally:
        rounded.unlink()
    errors = [
        float(np.abs(a - b).max(initial=0.0)) / (float(np.abs(b).max(initial=0.0)) or 1.0)
        for a, b in zip(found, wanted, strict=True)
    ]
    return float(np.max(errors))  # unlike max(), it returns NaN if there is one


def _run(file: Path, inputs: Mapping[str, np.ndarray]) -> list[np.ndarray]:
    import onnxruntime

    session = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
    return [np.asarray(value, np.float32) for value in session.run(None, dict(inputs))]


def spell_out_roundings(graph: ir.Graph, fused: Collection[str] = ()) -> None:
    """Let every float16 node that rounds compute in float32, and cast its output to float16.

    `fused` are operators that round besides products, arithmetic and activations.
    """
    rounding = _ROUNDING.union(fused)
    floats = _Casts(graph, ir.DataType.FLOAT, None)
    halves = _Casts(graph, ir.DataType.FLOAT16, None)
    for node in list(graph):
        rounded = [out for out in node.outputs if out.dtype == ir.DataType.FLOAT16]
        if node.op_type not in rounding or not rounded:
            continue
        for i, value in enumerate(node.inputs):
            if value is not None and value.dtype == ir.DataType.FLOAT16:
                node.replace_input_with(i, floats.of(value))
        for out in rounded:
            out.type = ir.TensorType(ir.DataType.FLOAT)
            readers = list(out.uses())
            cast = halves.of(out)
            for reader, i in readers:
                reader.replace_input_with(i, cast)


def _exact_nodes(graph: ir.Graph) -> set[ir.Node]:
    """The nodes of the guidance and solver algebra.

    A network that embeds guidance has no algebra of it: all of the network depends on the scale.
    """
    solver, guided = (_read_by(graph, name) for name in (SOLVER_INPUT, GUIDANCE_INPUT))
    embedded = any(node.op_type in _PRODUCTS for node in guided - solver)
    return solver if embedded else solver | guided


def _read_by(graph: ir.Graph, name: str) -> set[ir.Node]:
    """The nodes that depend on the input `name`; none if there is no such input."""
    given = (value for value in graph.inputs if value.name == name)
    return _reached(reader for value in given for reader in value.consumers())


def _spell_out_product(graph: ir.Graph, node: ir.Node) -> None:
    """Write the MatMul [k, m] @ [B, m, n] as a sum of products."""
    matrix, stack = node.inputs
    if matrix is None or stack is None or (_rank(matrix), _rank(stack)) != (2, 3):
        return
    axes = [ir.Value(name=f"{node.name}.axis{i}", const_value=_axis(i)) for i in (-1, 1, 2)]
    for value in axes:
        value.type, value.shape = ir.TensorType(ir.DataType.INT64), ir.Shape([1])
        graph.register_initializer(value)
    columns = ir.node("Unsqueeze", [matrix, axes[0]])
    rows = ir.node("Unsqueeze", [stack, axes[1]])
    terms = ir.node("Mul", [columns.outputs[0], rows.outputs[0]])
    total = ir.node("ReduceSum", [terms.outputs[0], axes[2]], {"keepdims": 0})
    graph.insert_before(node, [columns, rows, terms, total])
    for made in (columns, rows, terms, total):
        made.outputs[0].type = ir.TensorType(ir.DataType.FLOAT)
    ir.convenience.replace_nodes_and_values(graph, node, [node], [], node.outputs, total.outputs)


def _axis(index: int) -> ir.Tensor:
    return ir.Tensor(np.array([index], np.int64))


def _rank(value: ir.Value) -> int | None:
    return None if value.shape is None else len(value.shape)


def _half_nodes(graph: ir.Graph, exact: set[ir.Node], moves: _Moves) -> set[ir.Node]:
    """The nodes that compute in float16."""
    products = [n for n in graph if n.op_type in _PRODUCTS and n not in exact]
    after = _reached(products)
    before = _reached(products, backwards=True)
    half = {n for n in after & before if _may_be_half(n, moves)} - exact
    for node in reversed(graph):
        # A sum alone before a float32 node would only be rounded and widened again.
        readers = node.outputs[0].consumers()
        if node.op_type in _ARITHMETIC and readers and not half.intersection(readers):
            half.discard(node)
    return half


def _reached(start: Iterable[ir.Node], backwards: bool = False) -> set[ir.Node]:
    """The nodes of `start` and all that depend on them, or (backwards) that they depend on."""
    step: Callable[[ir.Node], Iterable[ir.Node]] = (
        (lambda node: node.predecessors()) if backwards else (lambda node: node.successors())
    )
    reached, todo = set(), list(start)
    while todo:
        node = todo.pop()
        if node not in reached:
            reached.add(node)
            todo.extend(step(node))
    return reached


def _may_be_half(node: ir.Node, moves: _Moves) -> bool:
    return (
        (node.op_type in _ROUNDING or node.op_type in moves)
        and _is_float(node.outputs[0])
        and all(_fits(node.inputs[i]) for i in _shared_inputs(node, moves))
    )


def _shared_inputs(node: ir.Node, moves: _Moves) -> range | tuple[int, ...]:
    """The positions of the inputs that have the type of the node's output."""
    positions = moves.get(node.op_type)
    given = range(len(node.inputs))
    return given if positions is None else tuple(i for i in positions if i in given)


def _fits(value: ir.Value | None) -> bool:
    """Whether float16 can represent a value: false for constants that overflow or vanish."""
    tensor = None if value is None else ir.convenience.get_const_tensor(value)
    if tensor is None or tensor.dtype != ir.DataType.FLOAT:
        return True
    array = np.abs(tensor_array(tensor))
    vanishes = array.size == 1 and 0 < float(array.max()) < _SMALLEST
    return not vanishes and float(array.max(initial=0.0)) <= _LARGEST


def _is_float(value: ir.Value) -> bool:
    return value.dtype == ir.DataType.FLOAT


class _Casts:
    """Values of a graph in another type: each is cast once.

    Constants are cast in the file, if `stores` says so, or are read in the type that they have
    there; without `stores` they are cast in the graph.
    """

    def __init__(self, graph: ir.Graph, dtype: ir.DataType, stores: _Stores | None) -> None:
        self._graph, self._dtype, self._stores = graph, dtype, stores
        self._made: dict[ir.Value, ir.Value] = {}

    def of(self, value: ir.Value) -> ir.Value:
        if value not in self._made:
            self._made[value] = self._stored(value) or self._cast(value)
        return self._made[value]

    def _stored(self, value: ir.Value) -> ir.Value | None:
        """An initializer of the wanted type with the value of `value`, if there can be one."""
        maker = value.producer()
        if self._stores is None:
            return None
        if maker is not None and maker.op_type == "Cast":
            stored = maker.inputs[0]
            if stored is not None and stored.is_initializer() and stored.dtype == self._dtype:
                return stored
        tensor = value.const_value
        if not value.is_initializer() or tensor is None or not self._stores(tensor):
            return None
        dtype = self._dtype
        name = f"{value.name}.{dtype.name.lower()}"
        cast = ir.LazyTensor(
            lambda: ir.Tensor(tensor_array(tensor).astype(dtype.numpy()), name=name),
            dtype=dtype,
            shape=ir.Shape(tensor.shape.numpy()),
            name=name,
        )
        stored = ir.Value(name=name, type=ir.TensorType(dtype), shape=value.shape, const_value=cast)
        self._graph.register_initializer(stored)
        return stored

    def _cast(self, value: ir.Value) -> ir.Value:
        node = ir.node("Cast", [value], {"to": self._dtype.value})
        cast = node.outputs[0]
        cast.type, cast.shape = ir.TensorType(self._dtype), value.shape
        maker = value.producer()
        if maker is None:
            self._graph.insert_before(self._graph[0], node)
        else:
            self._graph.insert_after(maker, node)
        return cast
