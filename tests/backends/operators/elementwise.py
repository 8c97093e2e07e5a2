"""Operators on each element."""

from __future__ import annotations

from collections.abc import Iterator

from tests.backends.operators.variant import Variant

_FUNCTIONS = (
    "Abs", "Ceil", "Cos", "Erf", "Exp", "Floor", "Neg", "Relu", "Round", "Sigmoid", "Sign",
    "Sin", "Softplus", "Softsign", "Tanh", "Elu", "Selu", "LeakyRelu", "Atan", "Sinh", "Cosh",
    "Asinh", "HardSigmoid", "HardSwish", "Celu", "Mish", "Gelu", "ThresholdedRelu", "Shrink",
    "Identity",
)  # fmt: skip
_SINCE = {"HardSwish": 14, "Mish": 18, "Gelu": 20}
"""The opset of their first version, where it is above 13."""
_PARAMETERS = (
    "HardSigmoid <alpha = 0.1, beta = 0.7>",
    "Elu <alpha = 0.3>",
    "Selu <alpha = 1.2, gamma = 0.7>",
    "LeakyRelu <alpha = 0.3>",
    "Celu <alpha = 0.4>",
    "ThresholdedRelu <alpha = 0.2>",
    "Shrink <lambd = 0.3, bias = 0.1>",
)
"""Activations with other parameters than the default ones."""


def functions() -> Iterator[Variant]:
    """Functions of one tensor."""
    for name in _FUNCTIONS:
        yield Variant(name, _SINCE.get(name, 13), f"y = {name} (x)")
        yield Variant(name, 22, f"y = {name} (x)")
    for text in _PARAMETERS:
        yield Variant(text.replace(" ", ""), 16, f"y = {text} (x)")
    yield Variant("Gelu[tanh]", 20, 'y = Gelu <approximate = "tanh"> (x)')
    yield Variant("Clip", 6, "y = Clip <min = -0.3, max = 0.4> (x)")
    yield Variant("Clip[most]", 13, "most = Constant <value_float = 0.4> () y = Clip (x, , most)")


def arithmetic() -> Iterator[Variant]:
    """Functions of several tensors, integer arithmetic and conversions of type."""
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
