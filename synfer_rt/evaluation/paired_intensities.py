"""Agreement of requested and read intensities, added up image by image."""

from __future__ import annotations

from typing import Any

import numpy as np

from synfer_rt.evaluation.intervals import of_correlation

PRESENT = 0.4
"""Intensity from which an action unit counts as shown: 2 of 5 (Mavadati et al., DISFA, 2013)."""


class PairedIntensities:
    """Sums over pairs of intensities in [0, 1] of `units`."""

    def __init__(self, units: int) -> None:
        self.count = 0
        self._sums = np.zeros((5, units))
        self._both, self._asked, self._read = np.zeros((3, units), np.int64)

    def add(self, asked: np.ndarray, read: np.ndarray) -> None:
        """Add rows [n, units] of what was asked for and of what was read."""
        x, y = np.asarray(asked, np.float64), np.asarray(read, np.float64)
        self.count += len(x)
        self._sums += [v.sum(0) for v in (x, y, x * x, y * y, x * y)]
        shown, seen = x >= PRESENT, y >= PRESENT
        self._both += (shown & seen).sum(0)
        self._asked += shown.sum(0)
        self._read += seen.sum(0)

    def of(self, unit: int) -> dict[str, Any]:
        """Pearson's correlation and F1 of a unit; null where they are not defined.

        `asked` and `read` are the numbers of images in which the unit is PRESENT.
        """
        x, y, xx, yy, xy = self._sums[:, unit] / max(self.count, 1)
        spread = np.sqrt(max(xx - x * x, 0) * max(yy - y * y, 0))
        # Sums of squares cancel to some 1e-16 where an intensity is always the same.
        correlation = float(np.clip((xy - x * y) / spread, -1, 1)) if spread > 1e-12 else None
        asked, read = int(self._asked[unit]), int(self._read[unit])
        return {
            "correlation": correlation,
            "interval": None
            if correlation is None
            else list(of_correlation(correlation, self.count)),
            "f1": 2 * int(self._both[unit]) / (asked + read) if asked + read else None,
            "asked": asked,
            "read": read,
        }
