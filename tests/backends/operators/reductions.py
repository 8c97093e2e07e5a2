"""Reductions, normalisations, and operators along one axis."""

from __future__ import annotations

from collections.abc import Iterator

from tests.backends.operators.variant import Variant, floats, ints


def reductions() -> Iterator[Variant]:
    """Reductions over channels, over height and width, and over the last axis."""
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
        before = floats("one", [1.0]) + before if "one" in before else before
        for opset in (11, 13, 17, 18):
            for axes, keep in (([1], 1), ([2, 3], 0), ([-1], 0)):
                if opset >= 18 or (kind == "Sum" and opset >= 13):
                    body = ints("axes", axes) + f"y = Reduce{kind} <keepdims = {keep}> (b, axes)"
                else:
                    body = f"y = Reduce{kind} <axes = {axes}, keepdims = {keep}> (b)"
                yield Variant(f"Reduce{kind}{axes}{keep}".replace(" ", ""), opset, before + body)


def along_an_axis() -> Iterator[Variant]:
    """Operators that normalise, accumulate or select along one axis."""
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
        body = ints("k", [3]) + f"y, i = TopK <axis = 1, largest = {largest}> (x, k)"
        yield Variant(f"TopK[{largest}]", 11, body)


def normalisations() -> Iterator[Variant]:
    """Normalisations over batches, channels, groups and axes."""
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
