"""The arithmetic of LoRA and its variants: small matrices that change one layer's weights W.

- LoRA (Hu et al., arXiv 2106.09685): ΔW = up @ down. Of a convolution, down has the kernel and up
  is 1x1; with a third factor (LoCon's Tucker form) the kernel is in that one.
- LoHa (Hyeon-Woo et al., arXiv 2108.06098): ΔW = (a1 @ b1) * (a2 @ b2), element by element.
- LoKr (Yeh et al., arXiv 2309.14859): ΔW = w1 ⊗ w2, Kronecker's product, each whole or a @ b.
- The difference of whole weights.
- DoRA (Liu et al., arXiv 2402.09353), on any of these: m · V / ‖V‖ with V = W + factor · ΔW.

All of it is computed in float64.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor

Parts = Mapping[str, Tensor]
"""The tensors of one layer by their role, such as `down` and `up`."""

_LORA = frozenset({"down", "up"})
_EMBEDDING = frozenset({"embedding_down", "embedding_up"})
_LOHA = frozenset({"hada_w1_a", "hada_w1_b", "hada_w2_a", "hada_w2_b"})
_LOKR = ("lokr_w1", "lokr_w2")
_PLACES = (
    (_LORA, {"mid", "alpha", "magnitude", "dora_scale", "bias_up"}),
    (_EMBEDDING, {"alpha", "magnitude"}),
    (_LOHA, {"hada_t1", "hada_t2", "alpha", "dora_scale"}),
    (frozenset({"diff"}), set()),
    *(
        (frozenset({*first, *second}), {"lokr_t2", "alpha", "dora_scale"})
        for first in (("lokr_w1",), ("lokr_w1_a", "lokr_w1_b"))
        for second in (("lokr_w2",), ("lokr_w2_a", "lokr_w2_b"))
    ),
)
"""For each kind of change, the tensors that it needs and those that it may have."""


def has_change(parts: Parts) -> bool:
    """Whether `parts` have every tensor that a change of weights needs."""
    return any(needed <= parts.keys() for needed, _ in _PLACES)


def without_place(parts: Parts) -> set[str]:
    """The tensors of a layer with a change that this kind of change does not have."""
    needed, beside = next((n, b) for n, b in _PLACES if n <= parts.keys())
    return parts.keys() - needed - beside


def rank(parts: Parts) -> int | None:
    """The rank that alpha is divided by; None for a change without a rank, whose factor is 1."""
    for name in ("down", "embedding_down", "hada_w1_b", "lokr_w1_b", "lokr_w2_b"):
        if name in parts:
            return len(parts[name])
    return None


def merged(weight: Tensor, parts: Parts, factor: float, scale: float) -> Tensor:
    """The weights [out, ...] of a layer, in their type, after `scale` times its change.

    ΔW is multiplied by `factor`, alpha / rank. With PEFT's `magnitude` [out] (for an embedding
    [width]), V is W + scale · factor · ΔW, as PEFT scales a DoRA. With kohya's `dora_scale`, whose
    shape says whether norms are those of outputs ([out, 1, ...]) or of inputs ([1, in, ...]), the
    weights move by the fraction `scale` from W to m · V / ‖V‖, as in ComfyUI. Raises ValueError or
    RuntimeError for shapes that do not fit, with meta tensors too.
    """
    before = weight.double()
    change = factor * _difference({name: t.double() for name, t in parts.items()}, before.shape)
    if "magnitude" in parts:
        axis = 1 if parts.keys() >= _EMBEDDING else 0
        after = _renormed(before + scale * change, parts["magnitude"], axis)
    elif "dora_scale" in parts:
        given = parts["dora_scale"]
        axis = 0 if given.shape[:1] == before.shape[:1] else 1
        after = before + scale * (_renormed(before + change, given, axis) - before)
    else:
        after = before + scale * change
    return after.to(weight.dtype)


def _renormed(weight: Tensor, magnitude: Tensor, axis: int) -> Tensor:
    """m · V / ‖V‖, with one norm and one magnitude for each index along `axis`."""
    size = weight.shape[axis]
    if magnitude.numel() != size:
        raise ValueError(f"magnitudes {list(magnitude.shape)} for weights {list(weight.shape)}")
    others = [i for i in range(weight.ndim) if i != axis]
    norms = torch.linalg.vector_norm(weight, dim=others, keepdim=True)
    # A row of zeros has no direction and stays zero.
    return weight * (magnitude.double().reshape(norms.shape) / norms.clamp(min=1e-300))


def _difference(parts: Parts, shape: torch.Size) -> Tensor:
    """ΔW of `shape` [out, ...]; ValueError if `parts` give another shape."""
    if parts.keys() >= _LORA:
        change = _of_lora(parts["up"], parts["down"], parts.get("mid"))
    elif parts.keys() >= _EMBEDDING:
        change = (parts["embedding_up"] @ parts["embedding_down"]).T
    elif parts.keys() >= _LOHA:
        first, second = (_of_factors(parts, f"hada_w{i}", f"hada_t{i}") for i in (1, 2))
        change = first * second
    elif "diff" in parts:
        change = parts["diff"]
    else:
        first, second = (_of_factors(parts, name, "lokr_t2") for name in _LOKR)
        first = first.reshape(*first.shape, *[1] * (second.ndim - 2))
        change = torch.kron(first, second.contiguous())
    flat = (shape[0], math.prod(shape[1:]))
    one_by_one = change.ndim == 4 and tuple(change.shape) == (*shape, 1, 1)
    if change.shape != shape and tuple(change.shape) != flat and not one_by_one:
        raise ValueError(f"a change of {list(change.shape)} for weights {list(shape)}")
    return change.reshape(shape)


def _of_lora(up: Tensor, down: Tensor, mid: Tensor | None) -> Tensor:
    """[out, rank, 1, 1] @ [rank, in, ...] -> [out, in, ...]; `mid` is [rank, rank, ...]."""
    if any(size != 1 for size in up.shape[2:]) or up.ndim < 2:
        raise ValueError(f"a second matrix {list(up.shape)}")
    if mid is None:
        return (up.flatten(1) @ down.flatten(1)).reshape(len(up), *down.shape[1:])
    if down.shape[2:].numel() != 1:
        raise ValueError(f"a first matrix {list(down.shape)} beside a middle {list(mid.shape)}")
    return torch.einsum("on,nmkl,mi->oikl", up.flatten(1), mid, down.flatten(1))


def _of_factors(parts: Parts, name: str, core: str) -> Tensor:
    """`name` whole, or [out, rank] @ [rank, in], with the `core` [rank, rank, ...] between them.

    With a core, the first factor is [rank, out].
    """
    if name in parts:
        return parts[name]
    first, second = parts[f"{name}_a"], parts[f"{name}_b"]
    if core in parts and name != "lokr_w1":
        return torch.einsum("nmkl,no,mi->oikl", parts[core], first, second)
    return first @ second
