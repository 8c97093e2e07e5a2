"""What a CUDA engine must not contain: a missed fusion, or work for the host.

The operators below have a kernel in ONNX Runtime's CUDA provider (1.31) for the types beside them.
Operators that the provider cannot record in a CUDA graph are left out: those whose output has a
size that depends on values, and GatherND and ScatterND, which copy their arguments from memory of
the host that is free again when the graph is replayed. So do a Split into many parts, and a MatMul
that repeats its left side for each sample (seen with the fake runtime of tests/fake_cuda).
"""

from __future__ import annotations

import onnx_ir as ir

from synfer_rt.errors import UserError
from synfer_rt.export.cuda.attention import is_attention
from synfer_rt.export.cuda.chain import MICROSOFT
from synfer_rt.export.cuda.packing import MOST_EQUAL_PARTS, MOST_PARTS
from synfer_rt.export.cuda.shapes import dims

_FLOATS = frozenset({ir.DataType.FLOAT, ir.DataType.FLOAT16})
_INTEGERS = frozenset({ir.DataType.INT32, ir.DataType.INT64})
_BOOL = frozenset({ir.DataType.BOOL})
_NUMBERS = _FLOATS | _INTEGERS
_ALL = _NUMBERS | _BOOL | {ir.DataType.UINT8, ir.DataType.DOUBLE}

_OPERATORS = {
    _FLOATS: """ArgMax ArgMin AveragePool BatchNormalization Ceil Conv ConvTranspose Cos
        DepthToSpace Elu Erf Exp Floor Gelu Gemm GlobalAveragePool GlobalMaxPool HardSigmoid
        HardSwish InstanceNormalization IsInf IsNaN LayerNormalization LeakyRelu Log LogSoftmax
        LRN MatMul MaxPool PRelu Reciprocal ReduceLogSumExp ReduceMean ReduceSumSquare Relu Round
        Selu Sigmoid Sin Softmax Softplus Softsign SpaceToDepth Sqrt Sum Tanh ThresholdedRelu""",
    _FLOATS | {ir.DataType.INT32}: "ReduceL1 ReduceL2 ReduceProd Resize",
    _FLOATS | {ir.DataType.INT64}: "Clip",
    _NUMBERS: """Abs Add CumSum Div Equal Greater GreaterOrEqual Less LessOrEqual Max Min Mod Mul
        Neg Pow ReduceMax ReduceMin ReduceSum Sign Sub Tile""",
    _FLOATS | _BOOL: "Pad",
    _BOOL: "And Not Or Xor",
    _NUMBERS | _BOOL | {ir.DataType.UINT8}: "Where",
    _ALL: """Cast Concat Expand Flatten Gather GatherElements Identity Reshape Shape Slice Split
        Squeeze Transpose Trilu Unsqueeze""",
}
_KERNELS = {op: types for types, names in _OPERATORS.items() for op in names.split()}
_FUSED = frozenset(
    {
        *("BiasAdd", "BiasSplitGelu", "GroupNorm", "MultiHeadAttention", "QuickGelu"),
        *("SkipGroupNorm", "SkipLayerNormalization"),
    }
)
"""The operators of ONNX Runtime's own that CUDA engines are made with, for float32 and float16."""

_TYPED_INPUT = {"Where": 1}
"""The input whose type matters, if it is not the first."""
_ON_HOST = {
    **dict.fromkeys(("CumSum", "Pad", "Resize", "Slice", "Split", "Squeeze", "Tile"), 1),
    **dict.fromkeys(("Expand", "Reshape", "Unsqueeze"), 1),
    **dict.fromkeys(("ReduceL1", "ReduceL2", "ReduceLogSumExp", "ReduceMax", "ReduceMean"), 1),
    **dict.fromkeys(("ReduceMin", "ReduceProd", "ReduceSum", "ReduceSumSquare", "Trilu"), 1),
}
"""The operators that read inputs on the host, from the position beside them on."""


def check_fusions(model: ir.Model, engine: str) -> None:
    """Raise UserError, naming the node, for an attention or a group norm that was not fused."""
    for node in model.graph:
        _refuse(engine, node, _missed(node))


def check_kernels(model: ir.Model, engine: str) -> None:
    """Raise UserError, naming the node, for what would run on the CPU or wait for it."""
    for node in model.graph:
        _refuse(engine, node, _without_kernel(node) or _host_work(node))


def _refuse(engine: str, node: ir.Node, reason: str | None) -> None:
    if reason is not None:
        name = node.name or node.outputs[0].name
        raise UserError(f"In {engine}, {node.op_type} {name} {reason}.")


def _missed(node: ir.Node) -> str | None:
    """The fusion that should have replaced a node."""
    if node.op_type == "GroupNormalization":
        return "was not fused, and would run as some 30 operators"
    if is_attention(node):
        return "is attention that was not fused"
    return None


def _without_kernel(node: ir.Node) -> str | None:
    if node.domain == MICROSOFT:
        types = _FLOATS if node.op_type in _FUSED else None
    else:
        types = _KERNELS.get(node.op_type) if node.domain in ("", "ai.onnx") else None
    if types is None:
        return "has no CUDA kernel that a CUDA graph could record"
    position = _TYPED_INPUT.get(node.op_type, 0)
    value = node.inputs[position] if position < len(node.inputs) else None
    if value is not None and value.dtype is not None and value.dtype not in types:
        return f"has no CUDA kernel for {value.dtype.name.lower()}"
    return None


def _host_work(node: ir.Node) -> str | None:
    """What a node does on the host: it may only pass a tensor's shape to Reshape and Expand."""
    if node.op_type == "Split":
        equal = len({dims(value) for value in node.outputs}) == 1
        last = node.attributes.get_int("axis", 0) in (-1, len(dims(node.inputs[0]) or ()) - 1)
        if len(node.outputs) > (MOST_EQUAL_PARTS if equal else MOST_PARTS if last else 0):
            return "copies the sizes of its parts from the host"
    if node.op_type == "MatMul":
        left, right = (dims(value) for value in node.inputs)
        if left is not None and right is not None and 2 < len(right) > len(left):
            return "copies the addresses of its factors from the host"
    if node.op_type == "Shape":
        for reader, position in node.outputs[0].uses():
            if reader.op_type not in ("Reshape", "Expand") or position != 1:
                return f"computes with sizes on the host, in {reader.op_type}"
        maker = node.inputs[0].producer() if node.inputs[0] is not None else None
        if maker is not None and maker.op_type != "Reshape":
            return "becomes arithmetic on the host where the runtime moves a transpose over it"
    for value in node.inputs[_ON_HOST.get(node.op_type, len(node.inputs)) :]:
        if value is None or ir.convenience.get_const_tensor(value) is not None:
            continue
        maker = value.producer()
        if maker is None or maker.op_type != "Shape":
            return "takes a size from the GPU, which the host would wait for"
    return None
