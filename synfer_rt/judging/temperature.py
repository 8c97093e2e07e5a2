"""Temperatures: what class probabilities are divided by, as logarithms, to mean what they say.

Guo et al., "On Calibration of Modern Neural Networks", arXiv 1706.04599.
"""

from __future__ import annotations

import math

import numpy as np

LARGEST = 20.0
"""Temperatures are sought from its reciprocal to it."""
FEWEST = 32
"""Images that a temperature is fitted on, at least: of fewer it says little."""
_LEAST = 1e-6
"""A smaller probability counts as this one: its logarithm would say more than is known."""
_HALVINGS = 60


def softmax(logits: np.ndarray) -> np.ndarray:
    """Probabilities [..., n] of logits [..., n], in float64."""
    shifted = np.asarray(logits, np.float64)
    powers = np.exp(shifted - shifted.max(-1, keepdims=True))
    return powers / powers.sum(-1, keepdims=True)


def logarithms(probabilities: np.ndarray) -> np.ndarray:
    """The logits float64 of probabilities, of which very small ones count as larger."""
    return np.log(np.maximum(probabilities.astype(np.float64), _LEAST))


def tempered(probabilities: np.ndarray, temperature: float) -> np.ndarray:
    """Distributions float64 [..., n] at a temperature: p^(1/T), divided by their sum."""
    if temperature == 1:
        return probabilities.astype(np.float64)
    return softmax(logarithms(probabilities) / temperature)


def fitted_temperature(logits: np.ndarray, classes: np.ndarray) -> float:
    """The T for which softmax(logits / T) [n, k] has the least cross-entropy to classes int [n].

    It is 1 for no images. The loss is convex in 1 / T. A target is the class with n + 1 of n + 2
    parts, as Platt (1999) smooths it: without, the best T of images that are all read rightly would
    be 0.
    """
    logits, (n, k) = np.asarray(logits, np.float64), logits.shape
    if not n:
        return 1.0
    targets = np.full((n, k), 1 / (n + 2) / (k - 1))
    targets[np.arange(n), classes] = (n + 1) / (n + 2)
    wanted = (targets * logits).sum(-1).mean()
    low, high = -math.log(LARGEST), math.log(LARGEST)  # of log(1 / T)
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        slope = (softmax(math.exp(middle) * logits) * logits).sum(-1).mean() - wanted
        low, high = (low, middle) if slope > 0 else (middle, high)
    return math.exp(-(low + high) / 2)


def log_loss(probabilities: np.ndarray, classes: np.ndarray) -> float:
    """The mean negative log-likelihood, in nats, of classes int [n] by probabilities [n, k]."""
    return float(-np.take_along_axis(logarithms(probabilities), classes[:, None], 1).mean())
