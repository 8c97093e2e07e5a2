"""How right and how calibrated class probabilities are, on images that nobody trained on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from synfer_rt.evaluation.intervals import wilson

BINS = 15


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


def scores(probabilities: np.ndarray, classes: np.ndarray, names: Sequence[str]) -> dict[str, Any]:
    """Accuracy with its interval, and the share of each class that is read rightly, as JSON."""
    right = probabilities.argmax(-1) == classes
    recall = {name: right[classes == i].mean() for i, name in enumerate(names)}
    low, high = wilson(float(right.mean()), len(right))
    return {
        "accuracy": round(float(right.mean()), 4),
        "accuracy_interval": [round(low, 4), round(high, 4)],
        "balanced_accuracy": round(float(np.mean(list(recall.values()))), 4),
        "recall": {name: round(float(share), 4) for name, share in recall.items()},
    }
