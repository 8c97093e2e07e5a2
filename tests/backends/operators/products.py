"""Products with weights, and layers made of them."""

from __future__ import annotations

from collections.abc import Iterator

from tests.backends.operators.variant import Variant, ints


def products() -> Iterator[Variant]:
    """Matrix products, quantised weights, attention and recurrent layers."""
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
    tokens = ints("s", [0, 8, 64]) + "r = Reshape (x, s) q = Transpose <perm = [0, 2, 1]> (r)\n"
    for causal in (0, 1):
        options = f"q_num_heads = 2, kv_num_heads = 2, is_causal = {causal}"
        yield Variant(f"Attention[{causal}]", 23, tokens + f"y = Attention <{options}> (q, q, q)")
    windows = "q_num_heads = 2, kv_num_heads = 2, left_window_size = 2, right_window_size = 1"
    yield Variant("Attention[windows]", 25, tokens + f"y = Attention <{windows}> (q, q, q)")
    turned = "t = Transpose <perm = [1, 0, 2]> (q)\n"
    last = ints("a", [0])
    lstm = (
        last + "h, l, c = LSTM <hidden_size = 8> (t, kernel, recurrent, gates) y = Squeeze (l, a)"
    )
    yield Variant("LSTM", 14, tokens + turned + lstm)
    for before in (0, 1):
        options = f"hidden_size = 8, linear_before_reset = {before}"
        gru = last + f"h, l = GRU <{options}> (t, kernel3, recurrent3, gates3) y = Squeeze (l, a)"
        yield Variant(f"GRU[{before}]", 14, tokens + turned + gru)
