"""Operators that move values without computing on them."""

from __future__ import annotations

from collections.abc import Iterator

from tests.backends.operators.variant import Variant, floats, ints


def shapes() -> Iterator[Variant]:
    """Operators that move, gather or scatter values."""
    yield Variant("Reshape[0]", 13, ints("s", [0, 4, -1]) + "y = Reshape (x, s)")
    for axis in (0, 1, 2, -1, -2):
        flat = f"f = Flatten <axis = {axis}> (x) " + ints("s", [-1, 512]) + "y = Reshape (f, s)"
        yield Variant(f"Flatten[{axis}]", 13, flat)
    yield Variant("Transpose", 13, "y = Transpose <perm = [0, 3, 1, 2]> (x)")
    slices = ints("b", [-1, 7]) + ints("e", [-9, 0]) + ints("a", [1, -1]) + ints("s", [-2, -3])
    yield Variant("Slice[backwards]", 13, slices + "y = Slice (x, b, e, a, s)")
    yield Variant("Split[uneven]", 13, ints("s", [3, 5]) + "p, y = Split <axis = 1> (x, s)")
    yield Variant("Split[count]", 18, "p, q, y = Split <axis = 1, num_outputs = 3> (x)")
    yield Variant("Tile", 13, ints("r", [1, 2, 1, 3]) + "y = Tile (x, r)")
    once = ints("z", [0]) + "c = Shape (x) n = Gather (c, z) q = Div (n, n)\n"
    computed = once + ints("t", [2, 2, 2]) + "r = Concat <axis = 0> (q, t) y = Tile (x, r)"
    yield Variant("Tile[computed]", 13, computed)
    yield Variant(
        "Expand",
        13,
        ints("s", [1, 8, 8, 8]) + "m = ReduceMax <axes = [2, 3]> (x) y = Expand (m, s)",
    )
    for mode in ("DCR", "CRD"):
        yield Variant(
            f"DepthToSpace[{mode}]", 13, f'y = DepthToSpace <blocksize = 2, mode = "{mode}"> (x)'
        )
    yield Variant("SpaceToDepth", 13, "y = SpaceToDepth <blocksize = 2> (x)")
    yield Variant("SpaceToDepth[CRD]", 28, 'y = SpaceToDepth <blocksize = 2, mode = "CRD"> (x)')
    yield Variant("Gather[negative]", 13, ints("i", [-1, 2, -8]) + "y = Gather <axis = 1> (x, i)")
    yield Variant("Gather[inner]", 13, ints("i", [2]) + "y = Gather <axis = 2> (x, i)")
    for upper in (0, 1):
        yield Variant(
            f"Trilu[{upper}]",
            14,
            f"k = Constant <value_int = 1> () y = Trilu <upper = {upper}> (x, k)",
        )
    scatter = ints("k", [2]) + "v, i = TopK <axis = 1> (x, k) "
    for reduction in ("none", "add", "mul", "max", "min"):
        body = scatter + f'y = ScatterElements <axis = 1, reduction = "{reduction}"> (x, i, v)'
        yield Variant(f"ScatterElements[{reduction}]", 18, body)
    yield Variant("GatherElements", 13, scatter + "y = GatherElements <axis = 1> (x, i)")
    ties = ints("k", [6]) + "r = Round (x) v, i = TopK <axis = 1> (r, k) y = Cast <to = 1> (i)"
    yield Variant("TopK[ties]", 13, ties)
    onehot = "i = ArgMax <axis = 1, keepdims = 0> (x) d = Constant <value_int = 8> () "
    onehot += floats("v", [-0.5, 2.0]) + "y = OneHot <axis = 1> (i, d, v)"
    yield Variant("OneHot", 12, onehot)
    for text, more in (
        ("bchw,cd->bdhw", "square"),
        ("bchw,hd->bcd", "square"),
        ("bchw,bcij->bhi", "x"),
    ):
        yield Variant(f"Einsum[{text}]", 12, f'y = Einsum <equation = "{text}"> (x, {more})')
    size = ints("s", [5, 11]) + "y = CenterCropPad <axes = [2, 3]> (x, s)"
    yield Variant("CenterCropPad", 18, size)


def pads() -> Iterator[Variant]:
    """Every mode of Pad, and where its numbers come from."""
    for mode in ("constant", "reflect", "edge"):
        for opset in (11, 18):
            body = ints("p", [0, 0, 2, 1, 0, 0, 3, 0]) + f'y = Pad <mode = "{mode}"> (x, p)'
            yield Variant(f"Pad[{mode}]", opset, body)
    yield Variant(
        "Pad[wrap]", 19, ints("p", [0, 0, 2, 1, 0, 0, 3, 0]) + 'y = Pad <mode = "wrap"> (x, p)'
    )
    yield Variant("Pad[cropping]", 13, ints("p", [0, 0, -1, 2, 0, 0, 1, -2]) + "y = Pad (x, p)")
    axes = ints("p", [1, 2, 0, 1]) + ints("a", [-1, 1]) + "v = Constant <value_float = 0.5> () "
    yield Variant("Pad[axes]", 18, axes + "y = Pad (x, p, v, a)")
    value = ints("p", [0, 0, 2, 1, 0, 0, 3, 0]) + "m = ReduceMean <keepdims = 0> (x)\n"
    yield Variant("Pad[computed]", 13, value + "y = Pad (x, p, m)")
