"""Operators that move numbers about without changing them (ONNX's operator schemas)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from synfer_rt.export.lifting.operator import Attributes, Known, Operator, Unsupported

_FEW = 16
"""As many single elements are taken one by one; more are a product with a matrix."""


def take(x: Tensor, axis: int, indices: Any) -> Tensor:
    """The elements of `indices` (numbers, one axis) along `axis`.

    The gradient of indexing is a scatter, which would fix the batch; so single elements are put
    together, or all are multiplied by a matrix of zeros and ones.
    """
    axis, count = axis % x.ndim, x.shape[axis]
    where = np.asarray(indices, np.int64) % count
    if np.array_equal(where, np.arange(count)):
        return x
    if len(where) <= _FEW:
        return torch.stack([x.select(axis, int(i)) for i in where], axis)
    chosen = torch.tensor(np.eye(count, dtype=np.float32)[where])
    return multiply(chosen, x, axis)


def multiply(matrix: Tensor, x: Tensor, axis: int) -> Tensor:
    """`matrix` [new, old] times `x` along `axis`, of length old."""
    axis, matrix = axis % x.ndim, matrix.to(x.dtype)
    if axis == x.ndim - 2:
        return matrix @ x
    return (x.movedim(axis, -1) @ matrix.T).movedim(-1, axis)


def _gather(attributes: Attributes, x: Tensor, indices: Known) -> Tensor:
    axis = attributes.get("axis", 0) % x.ndim
    if indices.ndim == 0:
        return x.select(axis, int(indices) % x.shape[axis])
    found = take(x, axis, indices.ravel())
    return found.reshape(*x.shape[:axis], *indices.shape, *x.shape[axis + 1 :])


def _gather_nd(attributes: Attributes, x: Tensor, indices: Known) -> Tensor:
    """The parts that the rows of `indices`, along the first axes of `x`, name."""
    if attributes.get("batch_dims", 0):
        raise Unsupported("its indices differ from sample to sample")
    sizes, rest = x.shape[: indices.shape[-1]], x.shape[indices.shape[-1] :]
    rows = indices.reshape(-1, len(sizes)) % np.array(sizes)
    where = np.ravel_multi_index(tuple(rows.T), tuple(sizes))
    return take(x.reshape(-1, *rest), 0, where).reshape(*indices.shape[:-1], *rest)


def _slice(
    attributes: Attributes,
    x: Tensor,
    starts: Known,
    ends: Known,
    axes: Known | None = None,
    steps: Known | None = None,
) -> Tensor:
    where = range(len(starts)) if axes is None else axes.tolist()
    strides = [1] * len(starts) if steps is None else steps.tolist()
    for axis, start, end, step in zip(where, starts.tolist(), ends.tolist(), strides, strict=True):
        length = x.shape[axis]
        chosen = range(length)[slice(start, end, step)]
        if step < 0 and end < -length:  # to the first element, which no end of Python's names
            chosen = range(length)[slice(start, None, step)]
        if step < 0:
            x = x.flip(axis)
            chosen = range(length - 1 - chosen.start, length - 1 - chosen.stop, -step)
        x = _narrow(x, axis, chosen)
    return x


def _narrow(x: Tensor, axis: int, chosen: range) -> Tensor:
    whole = [slice(None)] * x.ndim
    whole[axis] = slice(
        chosen.start, chosen.start + (len(chosen) - 1) * chosen.step + 1, chosen.step
    )
    if not len(chosen):
        whole[axis] = slice(0, 0)
    return x[tuple(whole)]


def _split(attributes: Attributes, x: Tensor, sizes: Known | None = None) -> list[Tensor]:
    axis = attributes.get("axis", 0)
    length = x.shape[axis]
    if sizes is None:
        count = attributes.get("num_outputs", attributes.outputs)
        size = -(-length // count)
        parts = [min(size, length - i * size) for i in range(count)]
    else:
        parts = sizes.tolist()
    ends = np.cumsum(parts).tolist()
    return [x.narrow(axis, end - part, part) for part, end in zip(parts, ends, strict=True)]


def _reshape(attributes: Attributes, x: Tensor, shape: Known) -> Tensor:
    sizes = [int(size) for size in shape]
    if not attributes.get("allowzero", 0):
        sizes = [x.shape[i] if size == 0 else size for i, size in enumerate(sizes)]
    return x.reshape(sizes)


def _flatten(attributes: Attributes, x: Tensor) -> Tensor:
    axis = attributes.get("axis", 1)
    axis = axis + x.ndim if axis < 0 else axis
    rows = int(np.prod(x.shape[:axis], dtype=np.int64))
    return x.reshape(rows, -1)


def _squeeze(attributes: Attributes, x: Tensor, axes: Known | None = None) -> Tensor:
    given = attributes.get("axes") if axes is None else axes.tolist()
    dropped = [i for i, size in enumerate(x.shape) if size == 1] if given is None else given
    dropped = {axis % x.ndim for axis in dropped}
    return x.reshape([size for i, size in enumerate(x.shape) if i not in dropped])


def _unsqueeze(attributes: Attributes, x: Tensor, axes: Known | None = None) -> Tensor:
    given = attributes.get("axes") if axes is None else axes.tolist()
    rank = x.ndim + len(given)
    for axis in sorted(axis % rank for axis in given):
        x = x.unsqueeze(axis)
    return x


def _expand(attributes: Attributes, x: Tensor, shape: Known) -> Tensor:
    return x.expand(np.broadcast_shapes(tuple(x.shape), tuple(shape.tolist())))


def _transpose(attributes: Attributes, x: Tensor) -> Tensor:
    return x.permute(attributes.get("perm", tuple(range(x.ndim))[::-1]))


def pad(
    attributes: Attributes,
    x: Tensor,
    pads: Known,
    value: Any = None,
    axes: Known | None = None,
) -> Tensor:
    """ONNX's Pad: constant, reflect, edge and wrap, of negative lengths too."""
    mode = attributes.get("mode", "constant")
    where = range(x.ndim) if axes is None else [axis % x.ndim for axis in axes.tolist()]
    before, after = np.split(np.asarray(pads, np.int64), 2)
    for axis, first, last in zip(where, before.tolist(), after.tolist(), strict=True):
        if first or last:
            x = _padded(x, axis, first, last, mode, 0.0 if value is None else value)
    return x


def _padded(x: Tensor, axis: int, first: int, last: int, mode: str, value: Any) -> Tensor:
    length = x.shape[axis]
    x = x.narrow(axis, max(-first, 0), length + min(first, 0) + min(last, 0))
    first, last = max(first, 0), max(last, 0)
    if mode == "constant":
        lengths = [0, 0] * (x.ndim - axis)
        lengths[-2:] = [first, last]
        return torch.nn.functional.pad(x, lengths, "constant", float(value))
    numbers = np.pad(np.arange(x.shape[axis]), (first, last), mode)  # type: ignore[call-overload]
    return take(x, axis, numbers)


def _depth_to_space(attributes: Attributes, x: Tensor) -> Tensor:
    b, c, h, w = x.shape
    k = attributes.get("blocksize")
    if attributes.get("mode", "DCR") == "DCR":
        x = x.reshape(b, k, k, c // k**2, h, w).permute(0, 3, 4, 1, 5, 2)
    else:
        x = x.reshape(b, c // k**2, k, k, h, w).permute(0, 1, 4, 2, 5, 3)
    return x.reshape(b, c // k**2, h * k, w * k)


def _space_to_depth(attributes: Attributes, x: Tensor) -> Tensor:
    b, c, h, w = x.shape
    k = attributes.get("blocksize")
    order = (0, 1, 3, 5, 2, 4) if attributes.get("mode") == "CRD" else (0, 3, 5, 1, 2, 4)
    x = x.reshape(b, c, h // k, k, w // k, k).permute(order)
    return x.reshape(b, c * k**2, h // k, w // k)


def _dropout(attributes: Attributes, x: Tensor, *rest: Any) -> Tensor:
    if len(rest) > 1 and rest[1] is not None and np.any(rest[1]):
        raise Unsupported("it trains")
    return x


def _concat(attributes: Attributes, *inputs: Any) -> Tensor:
    like = next(x for x in inputs if isinstance(x, Tensor))
    parts = [x if isinstance(x, Tensor) else torch.tensor(x, dtype=like.dtype) for x in inputs]
    return torch.cat(parts, attributes.get("axis"))


def _triangle(attributes: Attributes, x: Tensor, k: Known | None = None) -> Tensor:
    half = np.triu if attributes.get("upper", 1) else np.tril
    kept = half(np.ones(x.shape[-2:], bool), 0 if k is None else int(k.item()))
    return torch.where(torch.from_numpy(kept), x, 0.0)


def _tile(attributes: Attributes, x: Tensor, repeats: Known) -> Tensor:
    return x.repeat(*repeats.tolist())


SHAPES: Mapping[str, Operator] = {
    "Identity": Operator(lambda attributes, x: x),
    "Dropout": Operator(_dropout, frozenset({1, 2})),
    "Gather": Operator(_gather, frozenset({1})),
    "GatherND": Operator(_gather_nd, frozenset({1})),
    "Slice": Operator(_slice, frozenset({1, 2, 3, 4})),
    "Split": Operator(_split, frozenset({1})),
    "Concat": Operator(_concat),
    "Reshape": Operator(_reshape, frozenset({1})),
    "Flatten": Operator(_flatten),
    "Squeeze": Operator(_squeeze, frozenset({1})),
    "Unsqueeze": Operator(_unsqueeze, frozenset({1})),
    "Expand": Operator(_expand, frozenset({1})),
    "Trilu": Operator(_triangle, frozenset({1})),
    "Tile": Operator(_tile, frozenset({1})),
    "Transpose": Operator(_transpose),
    "Pad": Operator(pad, frozenset({1, 2, 3})),
    "DepthToSpace": Operator(_depth_to_space),
    "SpaceToDepth": Operator(_space_to_depth),
}
