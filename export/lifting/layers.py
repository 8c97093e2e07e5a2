"""Layers of neural networks: convolution, pooling, normalisation, resizing, attention.

Their formulas are those of ONNX's operator schemas, in operations whose backward passes are
operators of ONNX.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import torch
import torch.nn.functional as F
from onnx import helper
from onnx.reference import ReferenceEvaluator
from torch import Tensor

from synfer_rt.export.lifting.operator import Attributes, Known, Operator, Unsupported
from synfer_rt.export.lifting.shapes import multiply

_LOWEST = float(np.finfo(np.float32).min)


def _lengths(attributes: Attributes, name: str, rank: int, default: int) -> list[int]:
    return list(attributes.get(name) or [default] * rank)


def _pads(
    attributes: Attributes,
    sizes: Sequence[int],
    kernel: Sequence[int],
    stride: Sequence[int],
    dilation: Sequence[int],
) -> list[tuple[int, int]]:
    """The padding before and after each spatial axis."""
    rank, how = len(sizes), attributes.get("auto_pad", "NOTSET")
    if how == "NOTSET":
        given = _lengths(attributes, "pads", 2 * rank, 0)
        return list(zip(given[:rank], given[rank:], strict=True))
    if how == "VALID":
        return [(0, 0)] * rank
    pads = []
    for size, k, s, d in zip(sizes, kernel, stride, dilation, strict=True):
        total = max((-(-size // s) - 1) * s + d * (k - 1) + 1 - size, 0)
        less = total // 2
        pads.append((less, total - less) if how == "SAME_UPPER" else (total - less, less))
    return pads


def _around(x: Tensor, pads: Sequence[tuple[int, int]], value: float = 0.0) -> Tensor:
    if not any(map(any, pads)):
        return x
    return F.pad(x, [length for pair in reversed(pads) for length in pair], "constant", value)


def _convolution(attributes: Attributes, x: Tensor, weight: Tensor, bias: Any = None) -> Tensor:
    rank = x.ndim - 2
    stride, dilation = (_lengths(attributes, n, rank, 1) for n in ("strides", "dilations"))
    pads = _pads(attributes, x.shape[2:], weight.shape[2:], stride, dilation)
    padding = [0] * rank
    if all(a == b for a, b in pads):
        padding = [a for a, _ in pads]
    else:
        x = _around(x, pads)
    groups = attributes.get("group", 1)
    convolve = (F.conv1d, F.conv2d, F.conv3d)[rank - 1]
    return convolve(x, weight, bias, stride, padding, dilation, groups)


def _transposed(attributes: Attributes, x: Tensor, weight: Tensor, bias: Any = None) -> Tensor:
    rank = x.ndim - 2
    if attributes.get("output_shape") or attributes.get("auto_pad", "NOTSET") != "NOTSET":
        raise Unsupported("its padding follows from the output's shape")
    stride, dilation = (_lengths(attributes, n, rank, 1) for n in ("strides", "dilations"))
    rest = _lengths(attributes, "output_padding", rank, 0)
    pads = _pads(attributes, x.shape[2:], weight.shape[2:], stride, dilation)
    if any(a != b for a, b in pads):
        raise Unsupported("its padding differs from side to side")
    groups = attributes.get("group", 1)
    convolve = (F.conv_transpose1d, F.conv_transpose2d, F.conv_transpose3d)[rank - 1]
    padding = [a for a, _ in pads]
    return convolve(x, weight, bias, stride, padding, rest, groups, dilation)


@dataclass(frozen=True)
class _Windows:
    """The windows of a pooling along one axis of `size`: where each begins, -`before` at first.

    `before` and `after` are the padding.
    """

    size: int
    before: int
    after: int
    kernel: int
    stride: int
    dilation: int
    count: int

    def indices(self) -> np.ndarray:
        """Which elements each window covers, int [count, kernel]; some lie outside the image."""
        starts = self.stride * np.arange(self.count)[:, None] - self.before
        return starts + self.dilation * np.arange(self.kernel)


def _windows(attributes: Attributes, x: Tensor) -> list[_Windows]:
    """The windows along each spatial axis. With ceil_mode each begins within image or padding."""
    rank, kernel = x.ndim - 2, attributes.get("kernel_shape")
    stride, dilation = (_lengths(attributes, n, rank, 1) for n in ("strides", "dilations"))
    pads = _pads(attributes, x.shape[2:], kernel, stride, dilation)
    found = []
    for size, (before, after), k, s, d in zip(
        x.shape[2:], pads, kernel, stride, dilation, strict=True
    ):
        free = size + before + after - d * (k - 1) - 1
        count = free // s + 1
        if attributes.get("ceil_mode", 0):
            count = -(-free // s) + 1
            count -= (count - 1) * s >= size + before
        found.append(_Windows(size, before, after, k, s, d, count))
    return found


def max_pool(attributes: Attributes, x: Tensor) -> Tensor:
    """ONNX's MaxPool: comparisons along each axis, one after the other."""
    if attributes.outputs > 1:
        raise Unsupported("its indices are an output")
    for axis, windows in enumerate(_windows(attributes, x), 2):
        x = _maxima(x, axis, windows)
    return x


def _maxima(x: Tensor, axis: int, windows: _Windows) -> Tensor:
    """The first of the largest elements of each window along `axis`."""
    indices = windows.indices()
    indices = indices[:, ((indices >= 0) & (indices < windows.size)).any(0)]
    first, last = max(-indices.min(), 0), max(indices.max() - windows.size + 1, 0)
    pads = [(0, 0)] * (x.ndim - 2)
    pads[axis - 2] = (int(first), int(last))
    x = _around(x, pads, _LOWEST)
    found: Tensor | None = None
    for start in indices[0] + first:
        where = [slice(None)] * x.ndim
        stop = int(start) + (windows.count - 1) * windows.stride + 1
        where[axis] = slice(int(start), stop, windows.stride)
        part = x[tuple(where)]
        found = part if found is None else torch.where(found >= part, found, part)
    assert found is not None
    return found


def average_pool(attributes: Attributes, x: Tensor) -> Tensor:
    """ONNX's AveragePool: products with a matrix along each axis, of the shares of each element."""
    pads = bool(attributes.get("count_include_pad", 0))
    for axis, windows in enumerate(_windows(attributes, x), 2):
        indices = windows.indices()
        inside = (indices >= 0) & (indices < windows.size)
        counted = inside if not pads else indices < windows.size + windows.after
        shares = np.zeros((windows.count, windows.size), np.float32)
        for row, (covered, within) in enumerate(zip(indices, inside, strict=True)):
            shares[row, covered[within]] = 1 / counted[row].sum()
        x = multiply(torch.tensor(shares), x, axis)
    return x


def _spatial(x: Tensor) -> list[int]:
    return list(range(2, x.ndim))


def _by_channel(values: Any, x: Tensor) -> Any:
    return values.reshape(-1, *[1] * (x.ndim - 2))


def _batch_normalisation(
    attributes: Attributes, x: Tensor, scale: Any, bias: Any, mean: Any, variance: Any
) -> Tensor:
    if attributes.get("training_mode", 0):
        raise Unsupported("it trains")
    factor = scale * torch.rsqrt(variance + attributes.get("epsilon", 1e-5))
    return (x - _by_channel(mean, x)) * _by_channel(factor, x) + _by_channel(bias, x)


def _normal(x: Tensor, axes: list[int], epsilon: float) -> Tensor:
    centred = x - x.mean(axes, keepdim=True)
    return centred * (centred.square().mean(axes, keepdim=True) + epsilon).rsqrt()


def _layer_normalisation(attributes: Attributes, x: Tensor, scale: Any, bias: Any = None) -> Tensor:
    if attributes.outputs > 1:
        raise Unsupported("its mean is an output")
    axes = list(range(attributes.get("axis", -1) % x.ndim, x.ndim))
    found = _normal(x, axes, attributes.get("epsilon", 1e-5)) * scale
    return found if bias is None else found + bias


def _rms_normalisation(attributes: Attributes, x: Tensor, scale: Any) -> Tensor:
    axes = list(range(attributes.get("axis", -1) % x.ndim, x.ndim))
    mean = x.square().mean(axes, keepdim=True)
    return x * (mean + attributes.get("epsilon", 1e-5)).rsqrt() * scale


def _instance_normalisation(attributes: Attributes, x: Tensor, scale: Any, bias: Any) -> Tensor:
    found = _normal(x, _spatial(x), attributes.get("epsilon", 1e-5))
    return found * _by_channel(scale, x) + _by_channel(bias, x)


def _group_normalisation(attributes: Attributes, x: Tensor, scale: Any, bias: Any) -> Tensor:
    groups = attributes.get("num_groups")
    parts = x.reshape(x.shape[0], groups, -1)
    found = _normal(parts, [2], attributes.get("epsilon", 1e-5)).reshape(x.shape)
    if attributes.opset < 21:  # one number for each group
        each = x.shape[1] // groups
        scale, bias = (v.reshape(-1, 1).repeat(1, each).reshape(-1) for v in (scale, bias))
    return found * _by_channel(scale, x) + _by_channel(bias, x)


def _lp_normalisation(attributes: Attributes, x: Tensor) -> Tensor:
    axis = attributes.get("axis", -1)
    if attributes.get("p", 2) == 1:
        return x / torch.where(x >= 0, x, -x).sum(axis, keepdim=True)
    return x / x.square().sum(axis, keepdim=True).sqrt()


def _local_response_normalisation(attributes: Attributes, x: Tensor) -> Tensor:
    """The sum over neighbouring channels is a product with a matrix of zeros and ones."""
    size, channels = attributes.get("size"), np.arange(x.shape[1])
    apart = channels - channels[:, None]
    near = (apart >= -((size - 1) // 2)) & (apart <= size // 2)
    sums = multiply(torch.from_numpy(near.astype(np.float32)), x.square(), 1)
    total = attributes.get("bias", 1.0) + attributes.get("alpha", 1e-4) / size * sums
    return x * total ** -attributes.get("beta", 0.75)


def _resize(
    attributes: Attributes,
    x: Tensor,
    roi: Known | None = None,
    scales: Known | None = None,
    sizes: Known | None = None,
) -> Tensor:
    """Resizing is linear along each axis, so ONNX's reference implementation gives its matrices."""
    if attributes.get("coordinate_transformation_mode") == "tf_crop_and_resize":
        raise Unsupported("it crops")
    if attributes.get("keep_aspect_ratio_policy", "stretch") != "stretch":
        raise Unsupported("it keeps the aspect ratio")
    axes = attributes.get("axes") or range(x.ndim)
    given = scales if sizes is None or not sizes.size else sizes
    assert given is not None
    for axis, number in zip(axes, given.tolist(), strict=True):
        axis = axis % x.ndim
        if number != (x.shape[axis] if given is sizes else 1):
            x = multiply(_matrix(attributes, x.shape[axis], number, given is sizes), x, axis)
    return x


def _matrix(attributes: Attributes, old: int, number: float, is_size: bool) -> Tensor:
    """The matrix [new, old] of a resizing by a scale or to a size, float32."""
    values = {k: v for k, v in attributes.values.items() if k != "axes"}
    names = ["x", "", "", "numbers"] if is_size else ["x", "", "numbers"]
    node = helper.make_node("Resize", names, ["y"], **values)
    numbers = np.array([number, old], np.int64) if is_size else np.array([number, 1], np.float32)
    resize = ReferenceEvaluator(node, opsets={"": attributes.opset})
    given = {"x": np.eye(old, dtype=np.float32), "numbers": numbers}
    (found,) = cast(list[np.ndarray], resize.run(None, given))
    return torch.tensor(found)


def _attention(
    attributes: Attributes, query: Tensor, key: Tensor, value: Tensor, mask: Any = None, *rest: Any
) -> Tensor:
    """ONNX's Attention without cached keys and values."""
    odd = ("is_causal", "softcap", "qk_matmul_output_mode")
    if any(part is not None for part in rest) or any(attributes.get(name) for name in odd):
        raise Unsupported("it is causal, capped, or has cached keys")
    if any(attributes.get(f"{side}_window_size", -1) != -1 for side in ("left", "right")):
        raise Unsupported("it sees a window of the tokens")
    flat = query.ndim == 3
    heads, shared = attributes.get("q_num_heads"), attributes.get("kv_num_heads")
    if flat:
        query, key, value = (
            part.reshape(*part.shape[:2], count, -1).transpose(1, 2)
            for part, count in ((query, heads), (key, shared), (value, shared))
        )
    if query.shape[1] != key.shape[1]:
        times = query.shape[1] // key.shape[1]
        key, value = (part.repeat_interleave(times, 1) for part in (key, value))
    scale = attributes.get("scale") or query.shape[-1] ** -0.5
    scores = query * math.sqrt(scale) @ (key * math.sqrt(scale)).transpose(-2, -1)
    if mask is not None:
        hidden = mask.dtype == torch.bool if isinstance(mask, Tensor) else False
        scores = torch.where(mask, scores, _LOWEST) if hidden else scores + mask
    found = scores.softmax(-1) @ value
    return found.transpose(1, 2).flatten(2) if flat else found


LAYERS: Mapping[str, Operator] = {
    "Conv": Operator(_convolution),
    "ConvTranspose": Operator(_transposed),
    "MaxPool": Operator(max_pool),
    "AveragePool": Operator(average_pool),
    "GlobalAveragePool": Operator(lambda attributes, x: x.mean(_spatial(x), keepdim=True)),
    "GlobalMaxPool": Operator(lambda attributes, x: x.amax(_spatial(x), keepdim=True)),
    "BatchNormalization": Operator(_batch_normalisation),
    "InstanceNormalization": Operator(_instance_normalisation),
    "LayerNormalization": Operator(_layer_normalisation),
    "GroupNormalization": Operator(_group_normalisation),
    "RMSNormalization": Operator(_rms_normalisation),
    "LpNormalization": Operator(_lp_normalisation),
    "LRN": Operator(_local_response_normalisation),
    "Resize": Operator(_resize, frozenset({1, 2, 3})),
    "Attention": Operator(_attention),
}
