"""Small networks with known results: what a backend must compute right before it is said to work.

A runtime may load and still lack a library that only a convolution needs, or compute nothing at
all. So each probe, an ONNX file in `probe_graphs/`, is run and compared with numpy. The files are
made by export/onnx/probe_graphs.py.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

FOLDER = Path(__file__).parent / "probe_graphs"
GROUPS, HEADS, EPSILON = 4, 2, 1e-5
IMAGE, KERNEL, TOKENS = (2, 16, 8, 8), (16, 16, 3, 3), (2, 16, 64)
Run = Callable[[Path, Mapping[str, np.ndarray]], np.ndarray]
"""Runs an ONNX file of one output on inputs by name."""


@dataclass(frozen=True)
class Probe:
    """One network: its inputs by name, its result, and the largest error that is mere rounding.

    The error is relative to the largest value of the result. All arrays are float32.
    """

    name: str
    inputs: Mapping[str, np.ndarray]
    expected: np.ndarray
    tolerance: float

    @property
    def file(self) -> Path:
        """The ONNX file."""
        return FOLDER / f"{self.name.replace(' ', '-')}.onnx"

    def holds(self, found: np.ndarray) -> bool:
        """Whether a result is the expected one, but for rounding."""
        if found.shape != self.expected.shape:
            return False
        error = np.abs(found.astype(np.float64) - self.expected).max()
        return bool(error <= self.tolerance * np.abs(self.expected).max())  # False for a NaN


def plain() -> tuple[Probe, ...]:
    """A convolution, a group normalisation and an attention in ai.onnx's operators and float32."""
    image, tokens = {"image": pattern(*IMAGE)}, _tokens()
    return (
        Probe("convolution", image, _convolution(image["image"]), 5e-3),
        Probe("group normalisation", image, _normalised(image["image"]), 1e-3),
        Probe("attention", tokens, _attention(**tokens), 5e-3),
    )


def fused() -> tuple[Probe, ...]:
    """The fused operators of CUDA engines (com.microsoft's), which compute in float16."""
    image, tokens = pattern(*IMAGE), _tokens()
    normalised = _normalised(image)
    activated = normalised / (1 + np.exp(-normalised))  # SiLU
    return (
        Probe("fused group normalisation", {"image": image}, activated, 2e-2),
        Probe("fused attention", tokens, _attention(**tokens), 2e-2),
    )


def failures(run: Run, probes: Sequence[Probe]) -> dict[str, str]:
    """The probes that fail on a backend that runs ONNX files by `run`, each with the reason.

    A file that cannot be run counts like a wrong result, so nothing is raised.
    """
    found: dict[str, str] = {}
    for probe in probes:
        try:
            right = probe.holds(run(probe.file, probe.inputs))
        except Exception as error:  # the runtimes' exceptions share no base class but this
            found[probe.name] = str(error)
        else:
            if not right:
                found[probe.name] = "wrong values"
    return found


def pattern(*shape: int) -> np.ndarray:
    """Numbers in [-1, 1] that repeat in step with no dimension, float32 of this shape."""
    steps = np.arange(np.prod(shape, dtype=np.int64)) * 37 % 101
    return ((steps - 50) / np.float32(50)).astype(np.float32).reshape(shape)


def kernel() -> np.ndarray:
    """The weights of the convolution [16, 16, 3, 3]."""
    return pattern(*KERNEL)


def scale_and_bias() -> tuple[np.ndarray, np.ndarray]:
    """The weights of the group normalisation, each [16]."""
    weights = pattern(2, IMAGE[1])
    return 1 + weights[0] / 2, weights[1]


def _tokens() -> dict[str, np.ndarray]:
    """Query, key and value [B, tokens, heads * width] of the attention."""
    drawn = pattern(3, *TOKENS)
    return {"query": 4 * drawn[0], "key": drawn[1], "value": drawn[2]}


def _convolution(image: np.ndarray) -> np.ndarray:
    """A 3x3 convolution of [B, C, H, W] with a border of zeros."""
    padded = np.pad(image, ((0, 0), (0, 0), (1, 1), (1, 1)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, KERNEL[2:], (2, 3))
    return np.einsum("bchwij,ocij->bohw", windows, kernel())


def _normalised(image: np.ndarray) -> np.ndarray:
    """Group normalisation of [B, C, H, W] (Wu and He, arXiv 1803.08494)."""
    groups = image.reshape(len(image), GROUPS, -1).astype(np.float64)
    centred = groups - groups.mean(-1, keepdims=True)
    unit = centred / np.sqrt((centred**2).mean(-1, keepdims=True) + EPSILON)
    scale, bias = scale_and_bias()
    return unit.reshape(image.shape) * scale[:, None, None] + bias[:, None, None]


def _attention(query: np.ndarray, key: np.ndarray, value: np.ndarray) -> np.ndarray:
    """Scaled dot-product attention with several heads (Vaswani et al., arXiv 1706.03762)."""
    q, k, v = (
        x.reshape(*x.shape[:2], HEADS, -1).swapaxes(1, 2).astype(np.float64)
        for x in (query, key, value)
    )
    scores = q @ k.swapaxes(-1, -2) / np.sqrt(q.shape[-1])
    weights = np.exp(scores - scores.max(-1, keepdims=True))
    heads = weights / weights.sum(-1, keepdims=True) @ v
    return heads.swapaxes(1, 2).reshape(query.shape)
