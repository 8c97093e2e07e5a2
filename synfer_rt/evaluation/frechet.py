"""The Fréchet distance of normal distributions fitted to features (FID), and its bias."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from synfer_rt.evaluation.moments import Moments


def frechet_distance(a: Moments, b: Moments) -> float:
    """Squared Fréchet distance of two normal distributions; each needs two rows.

    |mean_a - mean_b|^2 + tr(A + B - 2 (A B)^(1/2)) (Heusel et al., arXiv 1706.08500, equation 6).
    """
    return frechet_distances([a], b)[0]


def frechet_distances(several: Sequence[Moments], other: Moments) -> list[float]:
    """`frechet_distance` of each of `several` to `other`.

    The trace of (A B)^(1/2) is that of (B^(1/2) A B^(1/2))^(1/2), which is symmetric, so that its
    eigenvalues are real.
    """
    root = _root(other.covariance)
    found: list[float] = []
    for one in several:
        covariance = one.covariance
        values = np.linalg.eigvalsh(root @ covariance @ root).clip(0)
        between = np.square(one.mean - other.mean).sum()
        traces = np.trace(covariance) + np.trace(other.covariance)
        # Of equal distributions rounding may leave a little less than nothing.
        found.append(max(float(between + traces - 2 * np.sqrt(values).sum()), 0.0))
    return found


def without_bias(counts: Sequence[int], distances: Sequence[float]) -> float:
    """The distance of infinitely many images, from those of several numbers of them.

    A distance of N images is too large by about a constant over N, so a line through the distances
    over 1 / N is extended to 0 (Chong and Forsyth, arXiv 1911.07023, section 3).
    """
    slope_and_value = np.polyfit(1 / np.array(counts, np.float64), np.array(distances), 1)
    return float(slope_and_value[1])


def _root(covariance: np.ndarray) -> np.ndarray:
    """The symmetric square root of a positive semidefinite matrix."""
    values, vectors = np.linalg.eigh(covariance)
    return (vectors * np.sqrt(values.clip(0))) @ vectors.T
