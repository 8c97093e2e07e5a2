"""Every operator gives what ONNX Runtime gives, and its gradient is that of small differences."""

from __future__ import annotations

from typing import cast

import numpy as np
import pytest

pytest.importorskip("torch", reason="the build side needs synfer-rt[export]")
import onnx
import onnxruntime
import torch
from onnx import numpy_helper, parser

from synfer_rt.errors import UserError
from synfer_rt.export.lifting.network import OPERATORS, OnnxNetwork

SHAPE = (2, 4, 6, 5)
"""That of the input x; other values are drawn in the shapes that a case names."""

CASES: dict[str, tuple[str, dict[str, tuple[int, ...]]]] = {
    "Abs": ("y = Abs(x)", {}),
    "Add": ("y = Add(x, w)", {"w": (4, 1, 5)}),
    "And": (
        "a = Greater(x, z)  b = Less(x, w)  c = And(a, b)  y = Where(c, x, z)",
        {"z": (1,), "w": (5,)},
    ),
    "Attention": (
        "t = Reshape<allowzero=0>(x, rows)  q = MatMul(t, w)  "
        "y = Attention<q_num_heads=2, kv_num_heads=2>(q, t, t)",
        {"w": (30, 30)},
    ),
    "Attention, masked": (
        "t = Reshape<allowzero=0>(x, rows)  k = MatMul(t, w)  "
        "y = Attention<q_num_heads=6, kv_num_heads=3, scale=0.3>(t, k, k, hidden)",
        {"w": (30, 15)},
    ),
    "Attention, added": ("y = Attention(x, x, x, m)", {"m": (1, 4, 6, 6)}),
    "AveragePool": ("y = AveragePool<kernel_shape=[3,2], strides=[2,1], pads=[1,0,1,1]>(x)", {}),
    "AveragePool, padding counted": (
        "y = AveragePool<kernel_shape=[3,3], strides=[2,2], pads=[1,1,1,1], count_include_pad=1>"
        "(x)",
        {},
    ),
    "AveragePool, ceil": ("y = AveragePool<kernel_shape=[4,3], strides=[3,2], ceil_mode=1>(x)", {}),
    "AveragePool, same": (
        'y = AveragePool<kernel_shape=[3,2], strides=[2,2], auto_pad="SAME_LOWER">(x)',
        {},
    ),
    "BatchNormalization": (
        "v = Abs(w)  y = BatchNormalization<epsilon=0.1>(x, s, b, m, v)",
        {"s": (4,), "b": (4,), "m": (4,), "w": (4,)},
    ),
    "Cast": ("a = Greater(x, z)  b = Cast<to=1>(a)  y = Mul(b, x)", {"z": (1,)}),
    "Celu": ("y = Celu<alpha=0.7>(x)", {}),
    "Clip": ("y = Clip(x, low, high)", {}),
    "Concat": ("y = Concat<axis=1>(x, w, x)", {"w": (2, 1, 6, 5)}),
    "Conv": (
        "y = Conv<pads=[1,0,2,1], strides=[2,1], dilations=[1,2]>(x, w, b)",
        {"w": (3, 4, 3, 2), "b": (3,)},
    ),
    "Conv, groups": (
        'y = Conv<group=2, auto_pad="SAME_UPPER", strides=[2,2]>(x, w)',
        {"w": (6, 2, 3, 3)},
    ),
    "ConvTranspose": (
        "y = ConvTranspose<strides=[2,2], pads=[1,1,1,1], output_padding=[1,0]>(x, w)",
        {"w": (4, 3, 3, 3)},
    ),
    "Cos": ("y = Cos(x)", {}),
    "CumSum": ("y = CumSum<exclusive=1>(x, one)", {}),
    "CumSum, reversed": ("y = CumSum<reverse=1>(x, one)", {}),
    "ConvTranspose, groups": (
        "y = ConvTranspose<group=2, dilations=[2,1], pads=[1,0,1,0]>(x, w, b)",
        {"w": (4, 2, 3, 2), "b": (4,)},
    ),
    "DepthToSpace": ('y = DepthToSpace<blocksize=2, mode="CRD">(x)', {}),
    "Div": ("a = Exp(w)  y = Div(x, a)", {"w": (6, 5)}),
    "Dropout": ("y = Dropout(x)", {}),
    "Einsum": ('y = Einsum<equation="bchw,cd->bdhw">(x, w)', {"w": (4, 3)}),
    "Elu": ("y = Elu<alpha=0.6>(x)", {}),
    "Equal": ("a = Equal(n, n)  y = Where(a, x, n)", {"n": (5,)}),
    "Erf": ("y = Erf(x)", {}),
    "Exp": ("y = Exp(x)", {}),
    "Expand": ("a = Expand(x, wide)  y = Mul(a, w)", {"w": (3, 1, 4, 6, 5)}),
    "Flatten": ("y = Flatten<axis=2>(x)", {}),
    "Gather": ("y = Gather<axis=1>(x, few)", {}),
    "Gather, scalar": ("y = Gather<axis=-1>(x, one)", {}),
    "Gather, many": ("y = Gather<axis=2>(x, many)", {}),
    "GatherND": ("y = GatherND(x, places)", {}),
    "GatherND, one axis": ("t = Transpose<perm=[1,0,2,3]>(x)  y = GatherND(t, channels)", {}),
    "Gelu": ("y = Gelu(x)", {}),
    "Gelu, tanh": ('y = Gelu<approximate="tanh">(x)', {}),
    "Gemm": (
        "a = Flatten(x)  y = Gemm<alpha=0.5, beta=2.0, transB=1>(a, w, b)",
        {"w": (3, 120), "b": (3,)},
    ),
    "GlobalAveragePool": ("y = GlobalAveragePool(x)", {}),
    "GlobalMaxPool": ("y = GlobalMaxPool(x)", {}),
    "Greater": ("a = Greater(x, w)  y = Where(a, x, w)", {"w": (5,)}),
    "GreaterOrEqual": ("a = GreaterOrEqual(x, w)  y = Where(a, x, w)", {"w": (5,)}),
    "GroupNormalization": ("y = GroupNormalization<num_groups=2>(x, s, b)", {"s": (4,), "b": (4,)}),
    "GroupNormalization, of groups": (
        "y = GroupNormalization<num_groups=2>(x, s, b)",
        {"s": (2,), "b": (2,)},
    ),
    "HardSigmoid": ("y = HardSigmoid<alpha=0.3>(x)", {}),
    "HardSwish": ("y = HardSwish(x)", {}),
    "Identity": ("y = Identity(x)", {}),
    "InstanceNormalization": ("y = InstanceNormalization(x, s, b)", {"s": (4,), "b": (4,)}),
    "IsNaN": ("a = IsNaN(x)  y = Where(a, w, x)", {"w": (5,)}),
    "IsInf": ("a = IsInf(x)  y = Where(a, w, x)", {"w": (5,)}),
    "LayerNormalization": ("y = LayerNormalization<axis=2>(x, s, b)", {"s": (6, 5), "b": (6, 5)}),
    "LeakyRelu": ("y = LeakyRelu<alpha=0.2>(x)", {}),
    "Less": ("a = Less(x, w)  y = Where(a, x, w)", {"w": (5,)}),
    "LessOrEqual": ("a = LessOrEqual(x, w)  y = Where(a, x, w)", {"w": (5,)}),
    "Log": ("a = Exp(x)  b = Add(a, a)  y = Log(b)", {}),
    "LogSoftmax": ("y = LogSoftmax<axis=1>(x)", {}),
    "LpNormalization": ("y = LpNormalization<axis=1>(x)", {}),
    "LpNormalization, first": ("y = LpNormalization<axis=2, p=1>(x)", {}),
    "LRN": ("y = LRN<size=3, alpha=0.7, beta=0.6, bias=1.5>(x)", {}),
    "MatMul": ("y = MatMul(x, w)", {"w": (5, 3)}),
    "Max": ("y = Max(x, w, v)", {"w": (5,), "v": (6, 1)}),
    "MaxPool": ("y = MaxPool<kernel_shape=[3,2], strides=[2,1], pads=[1,0,1,1]>(x)", {}),
    "MaxPool, ceil": ("y = MaxPool<kernel_shape=[3,3], strides=[2,2], ceil_mode=1>(x)", {}),
    "MaxPool, dilated": ("y = MaxPool<kernel_shape=[2,2], dilations=[3,2]>(x)", {}),
    "Mean": ("y = Mean(x, w)", {"w": (5,)}),
    "Min": ("y = Min(x, w)", {"w": (5,)}),
    "Mish": ("y = Mish(x)", {}),
    "Mul": ("y = Mul(x, x)", {}),
    "Neg": ("y = Neg(x)", {}),
    "Not": ("a = Less(x, w)  b = Not(a)  y = Where(b, x, w)", {"w": (5,)}),
    "Or": (
        "a = Less(x, w)  b = Greater(x, v)  c = Or(a, b)  y = Where(c, x, w)",
        {"w": (5,), "v": (1,)},
    ),
    "PRelu": ("y = PRelu(x, w)", {"w": (4, 1, 1)}),
    "Pad": ("y = Pad(x, pads, high)", {}),
    "Pad, reflected": ('y = Pad<mode="reflect">(x, pads)', {}),
    "Pad, wrapped": ('y = Pad<mode="wrap">(x, pads)', {}),
    "Pad, edge": ('y = Pad<mode="edge">(x, pads)', {}),
    "Pow": ("a = Exp(x)  y = Pow(a, high)", {}),
    "RMSNormalization": ("y = RMSNormalization<axis=-1>(x, s)", {"s": (5,)}),
    "Reciprocal": ("a = Exp(x)  y = Reciprocal(a)", {}),
    "ReduceL1": ("y = ReduceL1(x, axes)", {}),
    "ReduceL2": ("y = ReduceL2<keepdims=0>(x, axes)", {}),
    "ReduceLogSum": ("a = Exp(x)  y = ReduceLogSum(a, axes)", {}),
    "ReduceLogSumExp": ("y = ReduceLogSumExp(x, axes)", {}),
    "ReduceMax": ("y = ReduceMax(x, axes)", {}),
    "ReduceMean": ("y = ReduceMean<keepdims=0>(x, axes)", {}),
    "ReduceMin": ("y = ReduceMin(x, axes)", {}),
    "ReduceProd": ("y = ReduceProd<keepdims=0>(x, axes)", {}),
    "ReduceSum": ("y = ReduceSum(x)", {}),
    "ReduceSumSquare": ("y = ReduceSumSquare(x, axes)", {}),
    "Relu": ("y = Relu(x)", {}),
    "Reshape": ("y = Reshape(x, flat)", {}),
    "Resize": (
        'y = Resize<mode="linear", coordinate_transformation_mode="half_pixel">(x, , , sizes)',
        {},
    ),
    "Resize, nearest": (
        'y = Resize<mode="nearest", '
        'coordinate_transformation_mode="asymmetric", nearest_mode="floor">'
        "(x, , scales)",
        {},
    ),
    "Resize, smoothed": ('y = Resize<mode="linear", antialias=1>(x, , , fewer)', {}),
    "Resize, aligned": (
        'y = Resize<mode="linear", coordinate_transformation_mode="align_corners">(x, , , sizes)',
        {},
    ),
    "Resize, smoothed cubic": ('y = Resize<mode="cubic", antialias=1>(x, , , fewer)', {}),
    "Resize, cubic": ('y = Resize<mode="cubic">(x, , , sizes)', {}),
    "Selu": ("y = Selu(x)", {}),
    "Sigmoid": ("y = Sigmoid(x)", {}),
    "Sign": ("a = Sign(x)  b = Abs(x)  c = Sqrt(b)  y = Mul(a, c)", {}),
    "Sin": ("y = Sin(x)", {}),
    "Slice": ("y = Slice(x, starts, ends, where, steps)", {}),
    "Softmax": ("y = Softmax<axis=1>(x)", {}),
    "Softplus": ("y = Softplus(x)", {}),
    "Softsign": ("y = Softsign(x)", {}),
    "SpaceToDepth": ("a = Slice(x, zeros, even, last)  y = SpaceToDepth<blocksize=2>(a)", {}),
    "SpaceToDepth, channels first": (
        'a = Slice(x, zeros, even, last)  y = SpaceToDepth<blocksize=2, mode="CRD">(a)',
        {},
    ),
    "Split": ("a, y = Split<axis=1>(x, parts)", {}),
    "Sqrt": ("a = Exp(x)  y = Sqrt(a)", {}),
    "Squeeze": ("a = ReduceMean(x, axes)  y = Squeeze(a)", {}),
    "Sub": ("y = Sub(w, x)", {"w": (5,)}),
    "Sum": ("y = Sum(x, w, x)", {"w": (5,)}),
    "Swish": ("y = Swish<alpha=1.3>(x)", {}),
    "Tanh": ("y = Tanh(x)", {}),
    "ThresholdedRelu": ("y = ThresholdedRelu<alpha=0.4>(x)", {}),
    "Tile": ("y = Tile(x, times)", {}),
    "Transpose": ("y = Transpose<perm=[0,2,3,1]>(x)", {}),
    "Trilu": ("y = Trilu(x, one)", {}),
    "Trilu, lower": ("y = Trilu<upper=0>(x)", {}),
    "Unsqueeze": ("a = Unsqueeze(x, axes)  y = Mul(a, w)", {"w": (4, 1, 5, 3)}),
    "Where": ("a = Greater(w, z)  y = Where(a, x, w)", {"w": (6, 5), "z": (1,)}),
}
NUMBERS = {
    **{"low": np.float32(-0.3), "high": np.float32(0.8), "one": np.int64(-2)},
    **{
        "few": [3, 0, 0, 1],
        "many": [*range(5, -1, -1), *range(6), 0, 0, 3, 2, 1, 5],
        "axes": [1, -1],
    },
    **{"rows": [0, 4, -1], "flat": [0, -1, 10], "wide": [3, 1, 1, 1, 1], "times": [1, 2, 1, 3]},
    **{"pads": [0, 1, 2, 0, 0, 2, 1, 3], "sizes": [2, 4, 9, 7], "fewer": [2, 4, 3, 2]},
    **{"scales": np.array([1, 1, 2, 3], "f4"), "parts": [1, 3]},
    **{"starts": [0, 4], "ends": [6, -9], "where": [2, 3], "steps": [2, -2]},
    **{"places": [[1, 3], [0, -2], [1, 0]], "channels": [[2], [-1], [2]]},
    "hidden": np.tri(4, dtype=bool),
    **{"zeros": [0], "even": [4], "last": [3]},
}
"""Values that decide shapes, or are single numbers."""
NEW = {"Attention", "RMSNormalization"}
UNKNOWN_TO_THE_RUNTIME = {"Attention", "RMSNormalization", "Swish"}


def model(body: str, shapes: dict[str, tuple[int, ...]], opset: int = 21) -> onnx.ModelProto:
    """The graph `y` of `x`, with values that are drawn at random."""
    size = ", ".join(map(str, SHAPE))
    head = f'<ir_version: 10, opset_import: ["": {opset}]>'
    made = parser.parse_model(f"{head}\ng (float[{size}] x) => (float y) {{ {body} }}")
    draws = np.random.default_rng(0)
    words = {name for node in made.graph.node for name in node.input}
    for name, shape in shapes.items():
        value = draws.standard_normal(shape).astype("f4")
        made.graph.initializer.append(numpy_helper.from_array(value, name))
    for name in words & NUMBERS.keys():
        made.graph.initializer.append(numpy_helper.from_array(np.asarray(NUMBERS[name]), name))
    return made


def opset_of(name: str) -> int:
    if name == "GroupNormalization, of groups":
        return 20
    if name == "SpaceToDepth, channels first":
        return 28
    return {"Attention": 23, "RMSNormalization": 23, "Swish": 24}.get(name.partition(",")[0], 21)


def drawn() -> np.ndarray:
    """Numbers of which no two are so near that a small difference would change their order."""
    count = int(np.prod(SHAPE))
    spread = np.linspace(-1.5, 1.6, count, dtype="f4")
    return np.random.default_rng(1).permutation(spread).reshape(SHAPE)


def test_every_operator_has_a_case():
    assert {name.partition(",")[0] for name in CASES} == OPERATORS.keys()


@pytest.mark.parametrize("name", CASES)
def test_an_operator_is_that_of_onnx(name: str):
    body, shapes = CASES[name]
    graph, x = model(body, shapes, opset_of(name)), drawn()
    if name.partition(",")[0] in UNKNOWN_TO_THE_RUNTIME:
        from onnx.reference import ReferenceEvaluator

        (wanted,) = cast(list[np.ndarray], ReferenceEvaluator(graph).run(None, {"x": x}))
    else:
        session = onnxruntime.InferenceSession(
            graph.SerializeToString(), providers=["CPUExecutionProvider"]
        )
        wanted = np.asarray(session.run(None, {"x": x})[0])
    found = OnnxNetwork(graph, "y", "a.onnx")(torch.from_numpy(x)).numpy()
    assert found.shape == wanted.shape
    np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-5 * abs(wanted).max())


@pytest.mark.parametrize("name", CASES)
def test_its_gradient_is_that_of_small_differences(name: str):
    body, shapes = CASES[name]
    network = OnnxNetwork(model(body, shapes, opset_of(name)), "y", "a.onnx").double()
    x = torch.from_numpy(drawn()).double().requires_grad_()
    weights = None
    rng = torch.Generator().manual_seed(2)

    def scored(given: torch.Tensor) -> torch.Tensor:
        nonlocal weights
        y = network(given)
        if weights is None:
            weights = torch.rand(y.shape, generator=rng, dtype=torch.float64)
        return (y.double() * weights).sum()

    (gradient,) = torch.autograd.grad(scored(x), x)
    for direction in torch.randn(3, *SHAPE, generator=rng, dtype=torch.float64):
        with torch.no_grad():
            step = 1e-4 * direction
            change = (scored(x + step) - scored(x - step)) / 2e-4
        assert float(change) == pytest.approx(
            float((gradient * direction).sum()), rel=1e-3, abs=1e-4
        )


def test_operators_without_a_derivative_are_named():
    with pytest.raises(UserError, match=r"a.onnx computes with Round, of which .* no derivative"):
        OnnxNetwork(model("y = Round(x)", {}), "y", "a.onnx")


def test_what_depends_on_the_shape_alone_is_computed_for_each_shape():
    body = "s = Shape(x)  n = Gather(s, zero)  t = Concat<axis=0>(n, rest)  y = Reshape(x, t)"
    graph = model(body, {})
    for name, value in (("zero", [0]), ("rest", [-1])):
        graph.graph.initializer.append(numpy_helper.from_array(np.array(value), name))
    network = OnnxNetwork(graph, "y", "a.onnx")
    for batch in (1, 3):
        assert network(torch.zeros(batch, 4, 6, 5)).shape == (batch, 120)


@pytest.mark.parametrize(
    ("body", "why"),
    [
        (
            'y = Resize<mode="linear", coordinate_transformation_mode="tf_crop_and_resize">'
            "(x, roi, , sizes)",
            "Resize in a form .*it crops",
        ),
        ("n = CastLike(low, one)  a = Foo(n)  y = Mul(x, a)", "Foo in a form"),
        ("n = Cast<to=7>(x)  y = Cast<to=1>(n)", "Cast in a form .*it rounds to int64"),
        (
            "a = Abs(x)  n = ReduceMax(a)  s = Cast<to=1>(n)  y = Pad(x, pads, s)",
            "Pad in a form .*its input 2 is",
        ),
        ("y = Attention<left_window_size=1>(x, x, x)", "Attention in a form .*a window"),
    ],
)
def test_forms_of_operators_that_have_no_derivative_here_are_named(body: str, why: str):
    graph = model(body, {}, 25)
    roi = numpy_helper.from_array(np.array([0, 0, 0.1, 0.1, 1, 1, 0.9, 0.9], "f4"), "roi")
    graph.graph.initializer.append(roi)
    with pytest.raises(UserError, match=f"a.onnx has {why}"):
        OnnxNetwork(graph, "y", "a.onnx")(torch.from_numpy(drawn()))
