"""Operators on single numbers, products of matrices and reductions (ONNX's operator schemas)."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from onnx import helper
from torch import Tensor

from synfer_rt.export.lifting.operator import Attributes, Known, Operator, Unsupported
from synfer_rt.export.lifting.shapes import multiply


def _elementwise(function: Callable[..., Any]) -> Operator:
    return Operator(lambda attributes, *inputs: function(*inputs))


def _folded(function: Callable[[Any, Any], Any]) -> Operator:
    """An operator of any number of inputs."""

    def compute(attributes: Attributes, *inputs: Any) -> Any:
        found = inputs[0]
        for other in inputs[1:]:
            found = function(found, other)
        return found

    return Operator(compute)


def _larger(a: Any, b: Any) -> Tensor:
    a, b = _tensors(a, b)
    return torch.where(a >= b, a, b)


def _smaller(a: Any, b: Any) -> Tensor:
    a, b = _tensors(a, b)
    return torch.where(a <= b, a, b)


def _tensors(a: Any, b: Any) -> tuple[Tensor, Tensor]:
    like = a if isinstance(a, Tensor) else b
    made = [x if isinstance(x, Tensor) else torch.full_like(like, x) for x in (a, b)]
    return made[0], made[1]


def _div(a: Any, b: Any) -> Any:
    whole = not any(isinstance(x, Tensor) and x.is_floating_point() for x in (a, b))
    whole = whole and not any(isinstance(x, float) for x in (a, b))
    return torch.div(a, b, rounding_mode="trunc") if whole else a / b


def _pow(x: Any, exponent: Any) -> Any:
    if isinstance(exponent, (int, float)):
        return x.square() if exponent == 2 else x**exponent
    return torch.pow(x, exponent)


def _clip(attributes: Attributes, x: Tensor, low: Any = None, high: Any = None) -> Tensor:
    if low is not None:
        x = _larger(x, low)
    return x if high is None else _smaller(x, high)


def _cast(attributes: Attributes, x: Tensor, *_: Any) -> Tensor:
    kind = helper.tensor_dtype_to_np_dtype(attributes.get("to"))
    if x.is_floating_point():
        if np.dtype(kind).kind != "f":
            raise Unsupported(f"it rounds to {np.dtype(kind).name}")
        return x  # computed in float32 throughout
    return x.to(
        torch.float32 if np.dtype(kind).kind == "f" else torch.from_numpy(np.empty(0, kind)).dtype
    )


def _gemm(attributes: Attributes, a: Tensor, b: Tensor, c: Any = None) -> Tensor:
    a = a.T if attributes.get("transA", 0) else a
    b = b.T if attributes.get("transB", 0) else b
    found = attributes.get("alpha", 1.0) * (a @ b)
    return found if c is None else found + attributes.get("beta", 1.0) * c


def _einsum(attributes: Attributes, *inputs: Tensor) -> Tensor:
    return torch.einsum(attributes.get("equation"), *inputs)


def _gelu(attributes: Attributes, x: Tensor) -> Tensor:
    return F.gelu(x, approximate=attributes.get("approximate", "none"))


def _prelu(attributes: Attributes, x: Tensor, slope: Any) -> Tensor:
    return torch.where(x >= 0, x, x * slope)


def _hard_sigmoid(x: Tensor, alpha: float, beta: float) -> Tensor:
    line = alpha * x + beta
    return _smaller(_larger(line, 0.0), 1.0)


def _elu(x: Tensor, alpha: float, gamma: float = 1.0, width: float = 1.0) -> Tensor:
    below = _smaller(x, 0.0)  # the exponential of a large number would be infinite, its share nan
    return gamma * torch.where(x > 0, x, alpha * ((below / width).exp() - 1))


def _softplus(x: Tensor) -> Tensor:
    return F.relu(x) + torch.log(1 + torch.exp(-x.abs()))


def _axes(attributes: Attributes, x: Tensor, axes: Known | None) -> list[int] | None:
    """The axes to reduce; None for none at all."""
    given = attributes.get("axes") if axes is None else axes.tolist()
    if not given:
        return None if attributes.get("noop_with_empty_axes", 0) else list(range(x.ndim))
    return [axis % x.ndim for axis in given]


def _reduction(function: Callable[[Tensor, list[int], bool], Tensor]) -> Operator:
    def compute(attributes: Attributes, x: Tensor, axes: Known | None = None) -> Tensor:
        found = _axes(attributes, x, axes)
        return x if found is None else function(x, found, bool(attributes.get("keepdims", 1)))

    return Operator(compute, frozenset({1}))


def _product(x: Tensor, axes: list[int], keep: bool) -> Tensor:
    for axis in sorted(axes, reverse=True):
        parts = x.unbind(axis)
        x = math.prod(parts[1:], start=parts[0])
        x = x.unsqueeze(axis) if keep else x
    return x


def _extreme(sign: int) -> Callable[[Tensor, list[int], bool], Tensor]:
    def compute(x: Tensor, axes: list[int], keep: bool) -> Tensor:
        return sign * torch.amax(sign * x, axes, keep)

    return compute


def _cumulative_sum(attributes: Attributes, x: Tensor, axis: Known) -> Tensor:
    """A product with a triangle of ones."""
    where = int(axis.item())
    length = x.shape[where]
    ones = np.tri(length, k=-1 if attributes.get("exclusive", 0) else 0, dtype=np.float32)
    if attributes.get("reverse", 0):
        ones = ones[::-1, ::-1].copy()
    return multiply(torch.from_numpy(ones), x, where)


def _soft(function: Callable[[Tensor, int], Tensor]) -> Operator:
    return Operator(lambda attributes, x: function(x, attributes.get("axis", -1)))


def _of(attribute: str, default: float, function: Callable[[Tensor, float], Tensor]) -> Operator:
    return Operator(lambda attributes, x: function(x, attributes.get(attribute, default)))


def _selu(attributes: Attributes, x: Tensor) -> Tensor:
    alpha = attributes.get("alpha", 1.67326319217681884765625)
    return _elu(x, alpha, attributes.get("gamma", 1.05070102214813232421875))


def _where(condition: Any, a: Any, b: Any) -> Tensor:
    if not isinstance(condition, Tensor):
        return _tensors(a, b)[0 if condition else 1] * 1
    return torch.where(condition.bool(), a, b)


MATHEMATICS: Mapping[str, Operator] = {
    "Add": _folded(lambda a, b: a + b),
    "Sub": _elementwise(lambda a, b: a - b),
    "Mul": _elementwise(lambda a, b: a * b),
    "Div": _elementwise(_div),
    "Pow": _elementwise(_pow),
    "Neg": _elementwise(lambda x: -x),
    "Abs": _elementwise(lambda x: torch.where(x >= 0, x, -x)),
    "Sign": _elementwise(torch.sign),  # its derivative is 0, as of a factor that chooses a side
    "Exp": _elementwise(torch.exp),
    "Log": _elementwise(torch.log),
    "Sqrt": _elementwise(torch.sqrt),
    "Reciprocal": _elementwise(lambda x: 1 / x),
    "Erf": _elementwise(torch.erf),
    "Sin": _elementwise(torch.sin),
    "Cos": _elementwise(torch.cos),
    "Sum": _folded(lambda a, b: a + b),
    "Max": _folded(_larger),
    "Min": _folded(_smaller),
    "Mean": Operator(lambda attributes, *inputs: sum(inputs) / len(inputs)),
    "Clip": Operator(_clip),
    "Where": _elementwise(_where),
    "Cast": Operator(_cast),
    "IsNaN": _elementwise(torch.isnan),
    "IsInf": _elementwise(torch.isinf),
    "Equal": _elementwise(lambda a, b: a == b),
    "Greater": _elementwise(lambda a, b: a > b),
    "GreaterOrEqual": _elementwise(lambda a, b: a >= b),
    "Less": _elementwise(lambda a, b: a < b),
    "LessOrEqual": _elementwise(lambda a, b: a <= b),
    "Not": _elementwise(torch.logical_not),
    "And": _elementwise(torch.logical_and),
    "Or": _elementwise(torch.logical_or),
    "MatMul": _elementwise(torch.matmul),
    "Gemm": Operator(_gemm),
    "Einsum": Operator(_einsum),
    "CumSum": Operator(_cumulative_sum, frozenset({1})),
    "Relu": _elementwise(F.relu),
    "LeakyRelu": _of("alpha", 0.01, lambda x, alpha: torch.where(x >= 0, x, alpha * x)),
    "ThresholdedRelu": _of("alpha", 1.0, lambda x, alpha: torch.where(x > alpha, x, 0.0 * x)),
    "PRelu": Operator(_prelu),
    "Elu": _of("alpha", 1.0, _elu),
    "Celu": _of("alpha", 1.0, lambda x, alpha: _elu(x, alpha, width=alpha)),
    "Selu": Operator(_selu),
    "Gelu": Operator(_gelu),
    "Sigmoid": _elementwise(torch.sigmoid),
    "Swish": _of("alpha", 1.0, lambda x, alpha: x * torch.sigmoid(alpha * x)),
    "HardSigmoid": Operator(
        lambda attributes, x: _hard_sigmoid(
            x, attributes.get("alpha", 0.2), attributes.get("beta", 0.5)
        )
    ),
    "HardSwish": _elementwise(lambda x: x * _hard_sigmoid(x, 1 / 6, 0.5)),
    "Mish": _elementwise(lambda x: x * torch.tanh(_softplus(x))),
    "Softplus": _elementwise(_softplus),
    "Softsign": _elementwise(lambda x: x / (1 + x.abs())),
    "Tanh": _elementwise(torch.tanh),
    "Softmax": _soft(lambda x, axis: x.softmax(axis)),
    "LogSoftmax": _soft(lambda x, axis: x.log_softmax(axis)),
    "ReduceMean": _reduction(lambda x, axes, keep: x.mean(axes, keep)),
    "ReduceSum": _reduction(lambda x, axes, keep: x.sum(axes, keep)),
    "ReduceMax": _reduction(_extreme(1)),
    "ReduceMin": _reduction(_extreme(-1)),
    "ReduceProd": _reduction(_product),
    "ReduceL1": _reduction(lambda x, axes, keep: torch.where(x >= 0, x, -x).sum(axes, keep)),
    "ReduceL2": _reduction(lambda x, axes, keep: x.square().sum(axes, keep).sqrt()),
    "ReduceSumSquare": _reduction(lambda x, axes, keep: x.square().sum(axes, keep)),
    "ReduceLogSum": _reduction(lambda x, axes, keep: x.sum(axes, keep).log()),
    "ReduceLogSumExp": _reduction(lambda x, axes, keep: torch.logsumexp(x, axes, keep)),
}
