"""Operators of image classifiers and diffusion graphs, in the forms that published files have.

Each becomes a small classifier: `x` float [B, 8, 8, 8] are features of an image, the body of the
graph makes `y` of them, and the first scores are a projection of what `y` holds.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import onnx
import onnxruntime
from onnx import numpy_helper, parser

CLASSES, PIXELS, CHANNELS, SIZE = 8, 16, 8, 8
_DRAWS = np.random.default_rng(11)
_STEM = _DRAWS.standard_normal((CHANNELS, 3, 3, 3)).astype(np.float32)


def _weight(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng((seed, *shape)).standard_normal(shape).astype(np.float32)


WEIGHTS = {
    "w3": _weight(8, 8, 3, 3),
    "w2": _weight(8, 8, 2, 2),
    "w1": _weight(8, 8, 1, 1),
    "g2": _weight(8, 4, 3, 3),
    "dw": _weight(8, 1, 3, 3),
    "square": _weight(8, 8),
    "wide": _weight(8, 16),
    "bias": _weight(8),
    "scale": 1 + 0.3 * _weight(8, seed=1),
    "variance": 1 + np.abs(_weight(8, seed=2)),
    "slope": _weight(8, 1, 1),
    "last": _weight(8, seed=3),
    "kernel": _weight(1, 32, 8),
    "recurrent": _weight(1, 32, 8, seed=1),
    "gates": _weight(1, 64, seed=2),
    "kernel3": _weight(1, 24, 8),
    "recurrent3": _weight(1, 24, 8, seed=1),
    "gates3": _weight(1, 48, seed=2),
    "integers": np.arange(64, dtype=np.int8).reshape(8, 8) - 30,
    "points": np.random.default_rng(8).uniform(-1.2, 1.2, (1, 5, 5, 2)).astype(np.float32),
    "boxes": np.array([[0, 0, 5, 6], [1.5, 2, 7, 7.5]], np.float32),
}


@dataclass(frozen=True)
class Variant:
    """One operator in one form: what makes `y` of `x` at an opset."""

    name: str
    opset: int
    body: str

    @property
    def id(self) -> str:
        """What pytest calls it."""
        return f"{self.name}-{self.opset}"

    def network(self) -> onnx.ModelProto:
        """images float [B, 3, 16, 16] -> scores [B, 8], of the variant's opset."""
        probe = self._model("float[B,N] flat", "flat = Flatten (y)", np.zeros(0, np.float32))
        session = onnxruntime.InferenceSession(probe.SerializeToString())
        (flat,) = session.run(None, {"images": images(1)})
        head = _weight(flat.shape[1], CLASSES, seed=4)
        head *= 3 / max(float(np.linalg.norm(flat)), 1e-3)
        return self._model(
            "float[B,8] scores", "flat = Flatten (y) scores = MatMul (flat, head)", head
        )

    def _model(self, output: str, tail: str, head: np.ndarray) -> onnx.ModelProto:
        model = parser.parse_model(
            f'<ir_version: {7 if self.opset < 15 else 10}, opset_import: ["": {self.opset}]>\n'
            f"g (float[B,3,{PIXELS},{PIXELS}] images) => ({output}) {{\n"
            "x = Conv <strides = [2, 2], pads = [1, 1, 1, 1]> (images, stem)\n"
            f"{self.body}\n{tail}\n}}"
        )
        text = f"{self.body} {tail}".replace(",", " ").replace("(", " ").replace(")", " ")
        named = {"stem": _STEM, "head": head, **WEIGHTS}
        words = {"stem", *text.split()}
        model.graph.initializer.extend(
            numpy_helper.from_array(array, name) for name, array in named.items() if name in words
        )
        return model


def images(batch: int) -> np.ndarray:
    """Random pixels float [batch, 3, 16, 16] in [0, 1], others for each batch."""
    return np.random.default_rng(batch).random((batch, 3, PIXELS, PIXELS), np.float32)


def _ints(name: str, values: list[int]) -> str:
    return f"{name} = Constant <value = int64[{len(values)}] {{{str(values)[1:-1]}}}> ()\n"


def _floats(name: str, values: list[float]) -> str:
    return f"{name} = Constant <value = float[{len(values)}] {{{str(values)[1:-1]}}}> ()\n"


def _reductions() -> Iterator[Variant]:
    for kind in (
        "L1",
        "L2",
        "LogSum",
        "LogSumExp",
        "Max",
        "Mean",
        "Min",
        "Prod",
        "Sum",
        "SumSquare",
    ):
        before = (
            "a = Abs (x) b = Add (a, one)\n" if kind in ("LogSum", "Prod") else "b = Identity (x)\n"
        )
        before = _floats("one", [1.0]) + before if "one" in before else before
        for opset in (11, 13, 17, 18):
            for axes, keep in (([1], 1), ([2, 3], 0), ([-1], 0)):
                if opset >= 18 or (kind == "Sum" and opset >= 13):
                    body = _ints("axes", axes) + f"y = Reduce{kind} <keepdims = {keep}> (b, axes)"
                else:
                    body = f"y = Reduce{kind} <axes = {axes}, keepdims = {keep}> (b)"
                yield Variant(f"Reduce{kind}{axes}{keep}".replace(" ", ""), opset, before + body)


def _along_an_axis() -> Iterator[Variant]:
    for kind in ("Softmax", "LogSoftmax", "Hardmax"):
        # Of version 11 onnx's converter makes another Hardmax, which the build then refuses.
        for opset in (13,) if kind == "Hardmax" else (11, 13):
            yield Variant(f"{kind}[default]", opset, f"y = {kind} (x)")
            for axis in (1, 2, 3, -1):
                yield Variant(f"{kind}[{axis}]", opset, f"y = {kind} <axis = {axis}> (x)")
    for opset in (11, 13, 22):
        for p in (1, 2):
            for axis in (1, -1):
                body = f"y = LpNormalization <p = {p}, axis = {axis}> (x)"
                yield Variant(f"LpNormalization[{p},{axis}]", opset, body)
    for exclusive in (0, 1):
        for reverse in (0, 1):
            options = f"exclusive = {exclusive}, reverse = {reverse}"
            body = f"axis = Constant <value_int = 1> () y = CumSum <{options}> (x, axis)"
            yield Variant(f"CumSum[{exclusive},{reverse}]", 14, body)
    for kind in ("ArgMax", "ArgMin"):
        for last in (0, 1):
            body = f"i = {kind} <axis = 1, select_last_index = {last}> (x) y = Cast <to = 1> (i)"
            yield Variant(f"{kind}[{last}]", 13, body)
    for largest in (0, 1):
        body = _ints("k", [3]) + f"y, i = TopK <axis = 1, largest = {largest}> (x, k)"
        yield Variant(f"TopK[{largest}]", 11, body)


def _pools() -> Iterator[Variant]:
    window = "kernel_shape = [3, 3], strides = [2, 2]"
    forms = {
        "plain": "kernel_shape = [2, 2], strides = [2, 2]",
        "padded": "kernel_shape = [3, 3], pads = [1, 1, 1, 1]",
        "ceil": "kernel_shape = [3, 3], strides = [2, 2], ceil_mode = 1",
        "ceil padded": f"{window}, pads = [1, 1, 1, 1], ceil_mode = 1",
        "asymmetric": "kernel_shape = [3, 3], strides = [2, 2], pads = [0, 1, 1, 2]",
        "ceil asymmetric": f"{window}, pads = [0, 0, 1, 1], ceil_mode = 1",
        "upper": 'kernel_shape = [3, 3], strides = [2, 2], auto_pad = "SAME_UPPER"',
        "lower": 'kernel_shape = [3, 3], strides = [2, 2], auto_pad = "SAME_LOWER"',
        "valid": 'kernel_shape = [3, 3], auto_pad = "VALID"',
    }
    for name, form in forms.items():
        for opset in (11, 22):
            for include in (0, 1):
                body = f"y = AveragePool <{form}, count_include_pad = {include}> (x)"
                yield Variant(f"AveragePool[{name},{include}]", opset, body)
        for opset in (11, 22):
            yield Variant(f"MaxPool[{name}]", opset, f"y = MaxPool <{form}> (x)")
    dilated = "kernel_shape = [2, 2], dilations = [2, 2]"
    yield Variant("AveragePool[dilated]", 19, f"y = AveragePool <{dilated}> (x)")
    yield Variant("MaxPool[dilated]", 12, f"y = MaxPool <{dilated}> (x)")
    for p in (1, 2, 3):
        for name in ("plain", "padded", "upper"):
            yield Variant(f"LpPool[{name},{p}]", 11, f"y = LpPool <{forms[name]}, p = {p}> (x)")
        yield Variant(f"LpPool[ceil,{p}]", 18, f"y = LpPool <{forms['ceil']}, p = {p}> (x)")
        yield Variant(f"GlobalLpPool[{p}]", 11, f"y = GlobalLpPool <p = {p}> (x)")
    yield Variant("GlobalAveragePool", 11, "y = GlobalAveragePool (x)")
    yield Variant("GlobalMaxPool", 11, "y = GlobalMaxPool (x)")


def _convolutions() -> Iterator[Variant]:
    forms = {
        "asymmetric": "pads = [0, 1, 2, 1]",
        "strided": "strides = [2, 1], pads = [1, 1, 1, 1]",
        "dilated": "dilations = [2, 2], pads = [2, 2, 2, 2]",
        "upper": 'strides = [2, 2], auto_pad = "SAME_UPPER"',
        "lower": 'strides = [2, 2], auto_pad = "SAME_LOWER"',
    }
    for name, form in forms.items():
        yield Variant(f"Conv[{name}]", 11, f"y = Conv <{form}> (x, w3, bias)")
        yield Variant(f"Conv[{name},depthwise]", 11, f"y = Conv <{form}, group = 8> (x, dw)")
        yield Variant(f"Conv[{name},grouped]", 22, f"y = Conv <{form}, group = 2> (x, g2)")
    transposed = {
        "plain": "strides = [2, 2], pads = [1, 1, 1, 1]",
        "output padding": "strides = [2, 2], pads = [1, 1, 1, 1], output_padding = [1, 1]",
        "asymmetric": "strides = [2, 2], pads = [0, 1, 1, 0]",
        "dilated": "dilations = [2, 2], pads = [2, 2, 2, 2]",
        "output shape": "strides = [2, 2], output_shape = [16, 16]",
        "output shape, upper": 'strides = [2, 2], output_shape = [16, 16], auto_pad = "SAME_UPPER"',
        "output shape, lower": 'strides = [2, 2], output_shape = [16, 16], auto_pad = "SAME_LOWER"',
        "upper": 'strides = [2, 2], auto_pad = "SAME_UPPER"',
    }
    for name, form in transposed.items():
        for opset in (11, 22):
            yield Variant(
                f"ConvTranspose[{name}]", opset, f"y = ConvTranspose <{form}> (x, w3, bias)"
            )
        body = f"y = ConvTranspose <{form}, group = 2> (x, g2)"
        yield Variant(f"ConvTranspose[{name},grouped]", 11, body)
    shared = (
        "h = Conv <pads = [1, 1, 1, 1]> (x, w3) y = ConvTranspose <pads = [1, 1, 1, 1]> (h, w3)"
    )
    yield Variant("Conv and ConvTranspose", 11, shared)


def _resizes() -> Iterator[Variant]:
    empty = "nothing = Constant <value_floats: floats = []> ()\n"
    shrink, grow = [1.0, 1.0, 0.75, 0.5], [1.0, 1.0, 2.0, 1.5]
    points = ("half_pixel", "pytorch_half_pixel", "align_corners", "asymmetric")
    for mode in ("nearest", "linear", "cubic"):
        for where in points:
            for label, factors in (("shrink", shrink), ("grow", grow)):
                how = f'mode = "{mode}", coordinate_transformation_mode = "{where}"'
                body = (
                    empty
                    + _floats("factors", factors)
                    + f"y = Resize <{how}> (x, nothing, factors)"
                )
                yield Variant(f"Resize[{mode},{where},{label}]", 13, body)
    half = 'coordinate_transformation_mode = "half_pixel"'
    more = {
        "antialias linear": f'mode = "linear", antialias = 1, {half}',
        "antialias cubic": f'mode = "cubic", antialias = 1, {half}',
        "exclude outside": f'mode = "cubic", exclude_outside = 1, {half}',
        "coefficient": f'mode = "cubic", cubic_coeff_a = -0.5, {half}',
        "symmetric": f'mode = "linear", {half[:-1]}_symmetric"',
    }
    for label, how in more.items():
        opset = 19 if "symmetric" in label else 18
        for way, factors in (("shrink", shrink), ("grow", grow)):
            body = empty + _floats("factors", factors) + f"y = Resize <{how}> (x, nothing, factors)"
            yield Variant(f"Resize[{label},{way}]", opset, body)
    for rounding in ("round_prefer_floor", "round_prefer_ceil", "floor", "ceil"):
        how = f'mode = "nearest", nearest_mode = "{rounding}", {half}'
        body = empty + _floats("factors", shrink) + f"y = Resize <{how}> (x, nothing, factors)"
        yield Variant(f"Resize[{rounding}]", 13, body)
    for policy in ("stretch", "not_larger", "not_smaller"):
        how = f'mode = "linear", keep_aspect_ratio_policy = "{policy}", axes = [2, 3], {half}'
        body = empty + _ints("sizes", [12, 10]) + f"y = Resize <{how}> (x, nothing, nothing, sizes)"
        yield Variant(f"Resize[{policy}]", 18, body)
    how = 'mode = "linear", coordinate_transformation_mode = "tf_crop_and_resize"'
    roi = _floats("roi", [0.0, 0.0, 0.1, 0.2, 1.0, 1.0, 0.9, 0.8])
    body = roi + _floats("factors", grow) + f"y = Resize <{how}> (x, roi, factors)"
    yield Variant("Resize[crop]", 13, body)
    for mode in ("nearest", "linear"):
        factors = "factors = Constant <value = float[4] {1.0, 1.0, 2.0, 2.0}> ()\n"
        yield Variant(
            f"Upsample[{mode}]", 9, factors + f'y = Upsample <mode = "{mode}"> (x, factors)'
        )
        yield Variant(f"Resize[{mode}]", 10, factors + f'y = Resize <mode = "{mode}"> (x, factors)')


def _normalisations() -> Iterator[Variant]:
    for opset in (9, 14, 15):
        body = "y = BatchNormalization <epsilon = 0.01> (x, scale, bias, last, variance)"
        yield Variant("BatchNormalization", opset, body)
    for opset in (11, 22):
        yield Variant("InstanceNormalization", opset, "y = InstanceNormalization (x, scale, bias)")
    yield Variant("LRN", 13, "y = LRN <size = 3, alpha = 0.3, beta = 0.6, bias = 1.5> (x)")
    for axis in (-1, 3):
        yield Variant(
            f"LayerNormalization[{axis}]",
            17,
            f"y = LayerNormalization <axis = {axis}> (x, scale, bias)",
        )
        yield Variant(
            f"RMSNormalization[{axis}]", 23, f"y = RMSNormalization <axis = {axis}> (x, scale)"
        )
    yield Variant(
        "GroupNormalization", 21, "y = GroupNormalization <num_groups = 2> (x, scale, bias)"
    )
    for axes in ([0, 2, 3], [2, 3], [1]):
        if 0 not in axes:  # the default mixes the batch
            body = f"y = MeanVarianceNormalization <axes = {axes}> (x)"
            yield Variant(f"MeanVarianceNormalization{axes}".replace(" ", ""), 13, body)


_UNARY = (
    *("Abs", "Ceil", "Cos", "Erf", "Exp", "Floor", "Neg", "Relu", "Round", "Sigmoid", "Sign"),
    *("Sin", "Softplus", "Softsign", "Tanh", "Elu", "Selu", "LeakyRelu", "Atan", "Sinh", "Cosh"),
    *("Asinh", "HardSigmoid", "HardSwish", "Celu", "Mish", "Gelu", "ThresholdedRelu", "Shrink"),
    "Identity",
)
"""Operators of one input, without attributes."""


def _elementwise() -> Iterator[Variant]:
    since = {"HardSwish": 14, "Mish": 18, "Gelu": 20}
    for name in _UNARY:
        yield Variant(name, since.get(name, 13), f"y = {name} (x)")
        yield Variant(name, 22, f"y = {name} (x)")
    for text in (
        "HardSigmoid <alpha = 0.1, beta = 0.7>",
        "Elu <alpha = 0.3>",
        "Selu <alpha = 1.2, gamma = 0.7>",
        "LeakyRelu <alpha = 0.3>",
        "Celu <alpha = 0.4>",
        "ThresholdedRelu <alpha = 0.2>",
        "Shrink <lambd = 0.3, bias = 0.1>",
    ):
        yield Variant(text.replace(" ", ""), 16, f"y = {text} (x)")
    yield Variant("Gelu[tanh]", 20, 'y = Gelu <approximate = "tanh"> (x)')
    yield Variant("Clip", 6, "y = Clip <min = -0.3, max = 0.4> (x)")
    yield Variant("Clip[most]", 13, "most = Constant <value_float = 0.4> () y = Clip (x, , most)")
    yield Variant("PRelu[channels]", 9, "y = PRelu (x, slope)")
    yield Variant("PRelu[last]", 16, "y = PRelu (x, last)")
    for fmod in (0, 1):
        if fmod:
            body = "m = Constant <value_float = 0.7> () y = Mod <fmod = 1> (x, m)"
        else:
            body = (
                "m = Constant <value_int = -3> () ten = Constant <value_float = 10.0> () "
                "l = Mul (x, ten) i = Cast <to = 7> (l) r = Mod (i, m) y = Cast <to = 1> (r)"
            )
        yield Variant(f"Mod[{fmod}]", 13, body)
    integers = "ten = Constant <value_float = 10.0> () l = Mul (x, ten) i = Cast <to = 7> (l) "
    integers += "d = Constant <value_int = 4> () r = Div (i, d) y = Cast <to = 1> (r)"
    yield Variant("Div[integers]", 14, integers)
    yield Variant("Pow[integer]", 13, "two = Constant <value_int = 3> () y = Pow (x, two)")
    yield Variant("Max", 13, "y = Max (x, last, slope)")
    yield Variant("Mean", 13, "y = Mean (x, last, slope)")
    yield Variant("Where", 16, "p = Greater (x, slope) y = Where (p, x, last)")
    yield Variant("Cast[half]", 13, "h = Cast <to = 10> (x) y = Cast <to = 1> (h)")
    yield Variant("Cast[bool]", 13, "h = Cast <to = 9> (x) y = Cast <to = 1> (h)")
    yield Variant("Cast[uint8]", 13, "a = Abs (x) h = Cast <to = 2> (a) y = Cast <to = 1> (h)")


def _shapes() -> Iterator[Variant]:
    yield Variant("Reshape[0]", 13, _ints("s", [0, 4, -1]) + "y = Reshape (x, s)")
    for axis in (0, 1, 2, -1, -2):
        flat = f"f = Flatten <axis = {axis}> (x) " + _ints("s", [-1, 512]) + "y = Reshape (f, s)"
        yield Variant(f"Flatten[{axis}]", 13, flat)
    yield Variant("Transpose", 13, "y = Transpose <perm = [0, 3, 1, 2]> (x)")
    slices = _ints("b", [-1, 7]) + _ints("e", [-9, 0]) + _ints("a", [1, -1]) + _ints("s", [-2, -3])
    yield Variant("Slice[backwards]", 13, slices + "y = Slice (x, b, e, a, s)")
    yield Variant("Split[uneven]", 13, _ints("s", [3, 5]) + "p, y = Split <axis = 1> (x, s)")
    yield Variant("Split[count]", 18, "p, q, y = Split <axis = 1, num_outputs = 3> (x)")
    yield Variant("Tile", 13, _ints("r", [1, 2, 1, 3]) + "y = Tile (x, r)")
    yield Variant(
        "Expand",
        13,
        _ints("s", [1, 8, 8, 8]) + "m = ReduceMax <axes = [2, 3]> (x) y = Expand (m, s)",
    )
    for mode in ("constant", "reflect", "edge"):
        for opset in (11, 18):
            pads = _ints("p", [0, 0, 2, 1, 0, 0, 3, 0]) + f'y = Pad <mode = "{mode}"> (x, p)'
            yield Variant(f"Pad[{mode}]", opset, pads)
    yield Variant(
        "Pad[wrap]", 19, _ints("p", [0, 0, 2, 1, 0, 0, 3, 0]) + 'y = Pad <mode = "wrap"> (x, p)'
    )
    yield Variant("Pad[cropping]", 13, _ints("p", [0, 0, -1, 2, 0, 0, 1, -2]) + "y = Pad (x, p)")
    axes = _ints("p", [1, 2, 0, 1]) + _ints("a", [-1, 1]) + "v = Constant <value_float = 0.5> () "
    yield Variant("Pad[axes]", 18, axes + "y = Pad (x, p, v, a)")
    for mode in ("DCR", "CRD"):
        yield Variant(
            f"DepthToSpace[{mode}]", 13, f'y = DepthToSpace <blocksize = 2, mode = "{mode}"> (x)'
        )
    yield Variant("SpaceToDepth", 13, "y = SpaceToDepth <blocksize = 2> (x)")
    yield Variant("Gather[negative]", 13, _ints("i", [-1, 2, -8]) + "y = Gather <axis = 1> (x, i)")
    yield Variant("Gather[inner]", 13, _ints("i", [2]) + "y = Gather <axis = 2> (x, i)")
    for upper in (0, 1):
        yield Variant(
            f"Trilu[{upper}]",
            14,
            f"k = Constant <value_int = 1> () y = Trilu <upper = {upper}> (x, k)",
        )
    scatter = _ints("k", [2]) + "v, i = TopK <axis = 1> (x, k) "
    for reduction in ("none", "add", "mul", "max", "min"):
        body = scatter + f'y = ScatterElements <axis = 1, reduction = "{reduction}"> (x, i, v)'
        yield Variant(f"ScatterElements[{reduction}]", 18, body)
    yield Variant("GatherElements", 13, scatter + "y = GatherElements <axis = 1> (x, i)")
    onehot = "i = ArgMax <axis = 1, keepdims = 0> (x) d = Constant <value_int = 8> () "
    onehot += _floats("v", [-0.5, 2.0]) + "y = OneHot <axis = 1> (i, d, v)"
    yield Variant("OneHot", 12, onehot)
    for text, more in (
        ("bchw,cd->bdhw", "square"),
        ("bchw,hd->bcd", "square"),
        ("bchw,bcij->bhi", "x"),
    ):
        yield Variant(f"Einsum[{text}]", 12, f'y = Einsum <equation = "{text}"> (x, {more})')
    size = _ints("s", [5, 11]) + "y = CenterCropPad <axes = [2, 3]> (x, s)"
    yield Variant("CenterCropPad", 18, size)


def _products() -> Iterator[Variant]:
    flat = "p = GlobalAveragePool (x) f = Flatten (p)\n"
    yield Variant(
        "Gemm[alpha]", 13, flat + "y = Gemm <alpha = 0.5, beta = 2.0, transB = 1> (f, square, bias)"
    )
    yield Variant("Gemm[left]", 13, flat + "t = Transpose (f) y = Gemm <transA = 1> (t, wide)")
    yield Variant("MatMul", 13, "y = MatMul (x, wide)")
    yield Variant("MatMul[left]", 13, "y = MatMul (square, x)")
    yield Variant(
        "MatMul[batches]", 13, "t = Transpose <perm = [0, 1, 3, 2]> (x) y = MatMul (x, t)"
    )
    tied = "T = Transpose <perm = [1, 0]> (square) h = MatMul (x, square) y = MatMul (h, T)"
    yield Variant("MatMul[tied]", 13, tied)
    yield Variant("Gemm[tied]", 13, flat + "h = Gemm (f, square) y = Gemm <transB = 1> (h, square)")
    dequantized = (
        "s = Constant <value_float = 0.02> () w = DequantizeLinear (integers, s) y = MatMul (x, w)"
    )
    yield Variant("DequantizeLinear", 13, dequantized)
    by_axis = "w = DequantizeLinear <axis = 1> (integers, scale) y = MatMul (x, w)"
    yield Variant("DequantizeLinear[axis]", 13, by_axis)
    quantized = (
        "s = Constant <value_float = 0.05> () q = QuantizeLinear (x, s) y = DequantizeLinear (q, s)"
    )
    yield Variant("QuantizeLinear", 13, quantized)
    tokens = _ints("s", [0, 8, 64]) + "r = Reshape (x, s) q = Transpose <perm = [0, 2, 1]> (r)\n"
    for causal in (0, 1):
        options = f"q_num_heads = 2, kv_num_heads = 2, is_causal = {causal}"
        yield Variant(f"Attention[{causal}]", 23, tokens + f"y = Attention <{options}> (q, q, q)")
    turned = "t = Transpose <perm = [1, 0, 2]> (q)\n"
    last = _ints("a", [0])
    lstm = (
        last + "h, l, c = LSTM <hidden_size = 8> (t, kernel, recurrent, gates) y = Squeeze (l, a)"
    )
    yield Variant("LSTM", 14, tokens + turned + lstm)
    for before in (0, 1):
        options = f"hidden_size = 8, linear_before_reset = {before}"
        gru = last + f"h, l = GRU <{options}> (t, kernel3, recurrent3, gates3) y = Squeeze (l, a)"
        yield Variant(f"GRU[{before}]", 14, tokens + turned + gru)


def _sampling() -> Iterator[Variant]:
    grid = "s = Shape <end = 1> (x) o = Constant <value_ints = [5, 5, 2]> () "
    grid += "t = Concat <axis = 0> (s, o) g = Expand (points, t)\n"
    for mode, old in (("linear", "bilinear"), ("nearest", "nearest"), ("cubic", "bicubic")):
        for padding in ("zeros", "border", "reflection"):
            for align in (0, 1):
                for opset, word in ((16, old), (20, mode)):
                    how = f'mode = "{word}", padding_mode = "{padding}", align_corners = {align}'
                    body = grid + f"y = GridSample <{how}> (x, g)"
                    yield Variant(f"GridSample[{mode},{padding},{align}]", opset, body)


def variants() -> list[Variant]:
    """All of them; no two have the same id."""
    kinds = (
        *(_reductions, _along_an_axis, _pools, _convolutions, _resizes, _normalisations),
        *(_elementwise, _shapes, _products, _sampling),
    )
    return [variant for kind in kinds for variant in kind()]
