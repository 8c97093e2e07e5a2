"""How much images differ from each other."""

from __future__ import annotations

import numpy as np

from synfer_rt.evaluation.moments import Moments
from synfer_rt.evaluation.neighbours import squared_distances

_AT_ONCE = 2048


def within_class_distance(features: np.ndarray, classes: np.ndarray) -> float:
    """Mean Euclidean distance of two different images [n, d] of a class, averaged over classes.

    `classes` are numbers int64 [n]. Classes with a single image do not count; of no other classes
    it is NaN.
    """
    distances: list[float] = []
    for label in np.unique(classes):
        some = np.asarray(features[classes == label], np.float64)
        if len(some) > 1:
            distances.append(_mean_distance(some))
    return float(np.mean(distances)) if distances else float("nan")


def _mean_distance(features: np.ndarray) -> float:
    """Mean Euclidean distance of two different rows of [n, d], n at least 2."""
    total, count = 0.0, len(features)
    for begin in range(0, count, _AT_ONCE):
        squared = squared_distances(features[begin : begin + _AT_ONCE], features)
        squared[np.arange(len(squared)), begin + np.arange(len(squared))] = 0
        total += float(np.sqrt(squared).sum())
    return total / (count * (count - 1))


def unit(features: np.ndarray) -> np.ndarray:
    """Rows [n, d] of length 1, float64; a row of zeros stays so."""
    rows = np.asarray(features, np.float64)
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    return rows / np.where(lengths > 0, lengths, 1)


def vendi_score(units: Moments) -> float:
    """The effective number of different images (Friedman and Dieng, arXiv 2210.02410), 1 to n.

    `units` are the moments of features of length 1. The kernel is the cosine similarity, so the
    eigenvalues of the n x n matrix K / n are those of the d x d second moment, and the score is the
    exponential of their entropy.
    """
    values = np.linalg.eigvalsh(units.second_moment).clip(0)
    values = values[values > 0]
    return float(np.exp(-(values * np.log(values)).sum()))
