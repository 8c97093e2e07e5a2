"""How far a network's units are from the kinks of their activations.

At a kink, such as that of ReLU at 0, a derivative has two values. Rounding decides between them for
a unit that lies no farther from the kink than its rounding error, and the gradients of two correct
computations differ. If every unit lies farther, all computations that round as little have the
derivatives of one and the same smooth function.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

_ATEN = torch.ops.aten
_AT_ZERO = (_ATEN.relu, _ATEN.relu_, _ATEN._prelu_kernel, _ATEN.leaky_relu)
_AT_THREE = (_ATEN.hardswish, _ATEN.hardswish_, _ATEN.hardsigmoid, _ATEN.hardsigmoid_)
_AT_BOUNDS = (_ATEN.hardtanh, _ATEN.hardtanh_, _ATEN.clamp, _ATEN.clamp_min)
_POOLING = _ATEN.max_pool2d_with_indices
_KINKED = (*_AT_ZERO, *_AT_THREE, *_AT_BOUNDS, _POOLING)


class _Inputs(TorchDispatchMode):
    """Keeps the arguments of every operator that has kinks."""

    def __init__(self) -> None:
        super().__init__()
        self.kept: list[tuple[Any, Tensor, tuple[Any, ...]]] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func.overloadpacket in _KINKED:
            self.kept.append((func.overloadpacket, args[0].detach().clone(), args[1:]))
        return func(*args, **(kwargs or {}))


@torch.no_grad()
def clearance(network: nn.Module, images: Tensor) -> np.ndarray:
    """For each image [B] how far the unit nearest to a kink is from it, in rounding errors.

    The distance is computed in float64. The rounding error is the largest that PyTorch makes in
    float32 among the inputs of the same layer at the same image. inf if there are no kinks.
    """
    with _Inputs() as rounded:
        network(images)
    with _Inputs() as exact:
        network.double()(images.double())
    network.float()
    found = np.full(len(images), np.inf)
    for (_, single, _), (operator, x, options) in zip(rounded.kept, exact.kept, strict=True):
        error = (single - x).abs().flatten(1).amax(1).clamp_min(1e-30)
        distance = _distances(operator, x, options).flatten(1).amin(1)
        found = np.minimum(found, (distance / error).numpy())
    return found


def _distances(operator: Any, x: Tensor, options: tuple[Any, ...]) -> Tensor:
    """How far `x` is from the nearest kink of `operator`, unit by unit."""
    if operator is _POOLING:
        return _between_the_largest(x, *options)
    kinks = (0.0,)
    if operator in _AT_THREE:
        kinks = (-3.0, 3.0)
    elif operator in _AT_BOUNDS:
        kinks = tuple(float(bound) for bound in options if bound is not None)
    return torch.stack([(x - kink).abs() for kink in kinks]).amin(0)


def _between_the_largest(x: Tensor, kernel: Any, stride: Any, padding: Any = (0, 0)) -> Tensor:
    """Half of what the largest two elements of each window differ by.

    Two zeros of a ReLU before are equal, and the derivative of both is 0.
    """
    (kh, kw), (sh, sw), (ph, pw) = kernel, stride, padding
    x = F.pad(x, (pw, pw, ph, ph), value=-torch.inf)
    windows = x.unfold(2, kh, sh).unfold(3, kw, sw).flatten(-2)
    first, second = windows.topk(2).values.unbind(-1)
    return torch.where((first == 0) & (second == 0), torch.inf, (first - second) / 2)
