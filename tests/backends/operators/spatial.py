"""Operators on the height and width of images."""

from __future__ import annotations

from collections.abc import Iterator

from tests.backends.operators.variant import Variant, floats, ints


def pools() -> Iterator[Variant]:
    """Pooling with every way of padding."""
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
    beyond = "kernel_shape = [2, 2], strides = [3, 3], pads = [1, 1, 1, 1], ceil_mode = 1"
    yield Variant("MaxPool[beyond]", 22, f"y = MaxPool <{beyond}> (x)")
    yield Variant("AveragePool[dilated]", 19, f"y = AveragePool <{dilated}> (x)")
    yield Variant("MaxPool[dilated]", 12, f"y = MaxPool <{dilated}> (x)")
    for p in (1, 2, 3):
        for name in ("plain", "padded", "upper"):
            yield Variant(f"LpPool[{name},{p}]", 11, f"y = LpPool <{forms[name]}, p = {p}> (x)")
        yield Variant(f"LpPool[ceil,{p}]", 18, f"y = LpPool <{forms['ceil']}, p = {p}> (x)")
        yield Variant(f"GlobalLpPool[{p}]", 11, f"y = GlobalLpPool <p = {p}> (x)")
    yield Variant("GlobalAveragePool", 11, "y = GlobalAveragePool (x)")
    yield Variant("GlobalMaxPool", 11, "y = GlobalMaxPool (x)")


def convolutions() -> Iterator[Variant]:
    """Convolutions and transposed convolutions with every way of padding."""
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


def resizes() -> Iterator[Variant]:
    """Resizing in every mode, with every rule of coordinates."""
    empty = "nothing = Constant <value_floats: floats = []> ()\n"
    shrink, grow = [1.0, 1.0, 0.75, 0.5], [1.0, 1.0, 2.0, 1.5]
    points = ("half_pixel", "pytorch_half_pixel", "align_corners", "asymmetric")
    for mode in ("nearest", "linear", "cubic"):
        for where in points:
            for label, factors in (("shrink", shrink), ("grow", grow)):
                how = f'mode = "{mode}", coordinate_transformation_mode = "{where}"'
                body = (
                    empty + floats("factors", factors) + f"y = Resize <{how}> (x, nothing, factors)"
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
            body = empty + floats("factors", factors) + f"y = Resize <{how}> (x, nothing, factors)"
            yield Variant(f"Resize[{label},{way}]", opset, body)
    for rounding in ("round_prefer_floor", "round_prefer_ceil", "floor", "ceil"):
        how = f'mode = "nearest", nearest_mode = "{rounding}", {half}'
        body = empty + floats("factors", shrink) + f"y = Resize <{how}> (x, nothing, factors)"
        yield Variant(f"Resize[{rounding}]", 13, body)
    for policy in ("stretch", "not_larger", "not_smaller"):
        how = f'mode = "linear", keep_aspect_ratio_policy = "{policy}", axes = [2, 3], {half}'
        body = empty + ints("sizes", [12, 10]) + f"y = Resize <{how}> (x, nothing, nothing, sizes)"
        yield Variant(f"Resize[{policy}]", 18, body)
    how = 'mode = "linear", coordinate_transformation_mode = "tf_crop_and_resize"'
    roi = floats("roi", [0.0, 0.0, 0.1, 0.2, 1.0, 1.0, 0.9, 0.8])
    body = roi + floats("factors", grow) + f"y = Resize <{how}> (x, roi, factors)"
    yield Variant("Resize[crop]", 13, body)
    for mode in ("nearest", "linear"):
        factors = "factors = Constant <value = float[4] {1.0, 1.0, 2.0, 2.0}> ()\n"
        yield Variant(
            f"Upsample[{mode}]", 9, factors + f'y = Upsample <mode = "{mode}"> (x, factors)'
        )
        yield Variant(f"Resize[{mode}]", 10, factors + f'y = Resize <mode = "{mode}"> (x, factors)')


def sampling() -> Iterator[Variant]:
    """Sampling at points of a grid."""
    grid = "s = Shape <end = 1> (x) o = Constant <value_ints = [5, 5, 2]> () "
    grid += "t = Concat <axis = 0> (s, o) g = Expand (points, t)\n"
    for mode, old in (("linear", "bilinear"), ("nearest", "nearest"), ("cubic", "bicubic")):
        for padding in ("zeros", "border", "reflection"):
            for align in (0, 1):
                for opset, word in ((16, old), (20, mode)):
                    how = f'mode = "{word}", padding_mode = "{padding}", align_corners = {align}'
                    body = grid + f"y = GridSample <{how}> (x, g)"
                    yield Variant(f"GridSample[{mode},{padding},{align}]", opset, body)
