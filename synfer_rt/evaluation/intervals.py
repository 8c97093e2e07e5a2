"""95 % intervals of shares and of correlations."""

from __future__ import annotations

import math

Z = 1.959964


def wilson(share: float, count: float) -> tuple[float, float]:
    """Both ends of the Wilson interval of a `share` of `count` cases (Wilson, JASA 22, 1927).

    It is not centred on the share, and never leaves [0, 1]. Of no cases it is all of [0, 1].
    """
    if count <= 0:
        return 0.0, 1.0
    centre = (share + Z**2 / (2 * count)) / (1 + Z**2 / count)
    spread = math.sqrt(share * (1 - share) / count + Z**2 / (4 * count**2))
    half = Z / (1 + Z**2 / count) * spread
    return max(0.0, centre - half), min(1.0, centre + half)


def of_correlation(correlation: float, count: int) -> tuple[float, float]:
    """Both ends of the interval of Pearson's correlation of `count` pairs, by Fisher's z.

    With fewer than four pairs it is all of [-1, 1].
    """
    if count < 4:
        return -1.0, 1.0
    if abs(correlation) >= 1:
        return correlation, correlation
    z, half = math.atanh(correlation), Z / math.sqrt(count - 3)
    return math.tanh(z - half), math.tanh(z + half)
