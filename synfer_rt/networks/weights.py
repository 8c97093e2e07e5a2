"""Whether two ONNX files hold the same weights, whatever their names, types and layouts."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

import numpy as np

_LEAST = 64
"""Smaller tensors are often equal by chance."""
_DISTINCT = 16
"""So are tensors of few different values, such as ones."""
SAME = 0.5
"""The share of a network's weights from which it counts as the same network.

Two classifiers on one frozen trunk are one too: what one sees, the other does.
"""


def fingerprints(weights: Iterable[np.ndarray]) -> dict[str, int]:
    """A hash of each tensor that can be told from others, with its number of values.

    It is that of the sorted values in float16, so neither float16 storage nor another order of the
    axes changes it. It does change with the values: after fine-tuning, in int8, and where batch
    normalisation is folded into convolutions.
    """
    found: dict[str, int] = {}
    for tensor in weights:
        if tensor.size < _LEAST:
            continue
        with np.errstate(over="ignore"):
            halves = tensor.astype(np.float16).ravel() + np.float16(0)  # no negative zeros
        bits = np.sort(halves.view(np.uint16), kind="stable")
        if np.count_nonzero(np.diff(bits)) >= _DISTINCT - 1:
            found[hashlib.sha256(bits.tobytes()).hexdigest()] = int(tensor.size)
    return found


def shared(one: dict[str, int], other: dict[str, int]) -> float:
    """The share of the values of `one` in tensors that `other` has too, 0 to 1."""
    total = sum(one.values())
    return sum(size for key, size in one.items() if key in other) / total if total else 0.0
