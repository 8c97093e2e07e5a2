"""How right and how calibrated class probabilities are, on images that nobody trained on."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

BINS = 15
_HALVINGS = 60
_LARGEST = 20.0
"""Temperatures are sought from its reciprocal to it."""
_Z95 = 1.959964


def softmax(logits: np.ndarray) -> np.ndarray:
    """Probabilities [n, classes] of logits [n, classes], in float64."""
    shifted = np.asarray(logits, np.float64)
    powers = np.exp(shifted - shifted.max(-1, keepdims=True))
    return powers / powers.sum(-1, keepdims=True)


def calibration_error(probabilities: np.ndarray, classes: np.ndarray, bins: int = BINS) -> float:
    """The expected calibration error of probabilities [n, k] for classes int [n], in [0, 1].

    The likeliest class's probability is the confidence; over `bins` bins of equal width, bin i
    holding confidences in ((i - 1) / bins, i / bins], it is the mean of |accuracy - confidence|,
    weighted by the bins' images (Guo et al., arXiv 1706.04599, equation 3).
    """
    confidence = probabilities.max(-1)
    right = probabilities.argmax(-1) == classes
    bin_of = np.clip(np.ceil(confidence * bins) - 1, 0, bins - 1).astype(int)
    gaps = np.bincount(bin_of, right - confidence, bins)
    return float(np.abs(gaps).sum() / len(classes))


def fitted_temperature(logits: np.ndarray, classes: np.ndarray) -> float:
    """The T for which softmax(logits / T) [n, k] has the least cross-entropy to classes int [n].

    The loss is convex in 1 / T. A target is the class with n + 1 of n + 2 parts, as Platt (1999)
    smooths it: without, the best T of images that are all read rightly would be 0.
    """
    logits, (n, k) = np.asarray(logits, np.float64), logits.shape
    targets = np.full((n, k), 1 / (n + 2) / (k - 1))
    targets[np.arange(n), classes] = (n + 1) / (n + 2)
    wanted = (targets * logits).sum(-1).mean()
    low, high = -math.log(_LARGEST), math.log(_LARGEST)  # of log(1 / T)
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        slope = (softmax(math.exp(middle) * logits) * logits).sum(-1).mean() - wanted
        low, high = (low, middle) if slope > 0 else (middle, high)
    return math.exp(-(low + high) / 2)


def interval(right: int, of: int) -> tuple[float, float]:
    """Wilson's 95 % interval (1927) of a share of `right` among `of`."""
    share, z = right / of, _Z95**2 / of
    middle = (share + z / 2) / (1 + z)
    half = math.sqrt(z * (share * (1 - share) + z / 4)) / (1 + z)
    return middle - half, middle + half


def scores(probabilities: np.ndarray, classes: np.ndarray, names: Sequence[str]) -> dict[str, Any]:
    """Accuracy with its interval, and the share of each class that is read rightly, as JSON."""
    right = probabilities.argmax(-1) == classes
    recall = {name: right[classes == i].mean() for i, name in enumerate(names)}
    low, high = interval(int(right.sum()), len(right))
    return {
        "accuracy": round(float(right.mean()), 4),
        "accuracy_interval": [round(low, 4), round(high, 4)],
        "balanced_accuracy": round(float(np.mean(list(recall.values()))), 4),
        "recall": {name: round(float(share), 4) for name, share in recall.items()},
    }
