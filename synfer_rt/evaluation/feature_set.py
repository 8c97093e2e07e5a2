"""Features of many images: statistics of all, a random subset, and all of them in a file."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from synfer_rt.evaluation.diversity import unit
from synfer_rt.evaluation.moments import Moments, joined
from synfer_rt.evaluation.subsets import Subset

PARTS = 5
"""Random parts of the images whose moments are kept apart, for distances of fewer images."""
_AT_ONCE = 1024


class FeatureSet:
    """Features of images that are added in a fixed order, in memory that does not grow.

    `subset` are at most `size` of them. With a `file` all are kept there, as float32. Nothing
    depends on how many are added at once.
    """

    def __init__(self, size: int, seed: int, file: Path | None = None) -> None:
        self.count, self.dimensions = 0, 0
        self.subset = Subset(size, seed)
        self._random = np.random.default_rng((seed, 1))
        self._file, self._waiting = file, np.zeros((0, 0), np.float32)
        self._parts: list[Moments | None] = [None] * PARTS
        self._units: Moments | None = None

    def add(self, features: np.ndarray) -> None:
        """Add rows [n, d]."""
        rows = np.asarray(features, np.float32)
        self.dimensions = rows.shape[1]
        self.count += len(rows)
        self.subset.add(rows)
        if self._file is not None:
            with self._file.open("ab") as stream:
                stream.write(rows.tobytes())
        self._waiting = np.concatenate([self._waiting, rows]) if self._waiting.size else rows
        while len(self._waiting) >= _AT_ONCE:
            self._count_in(self._waiting[:_AT_ONCE])
            self._waiting = self._waiting[_AT_ONCE:]

    def _count_in(self, rows: np.ndarray) -> None:
        parts = self._random.integers(0, PARTS, len(rows))
        for part in range(PARTS):
            if (some := rows[parts == part]).size:
                self._parts[part] = _with(self._parts[part], some)
        self._units = _with(self._units, unit(rows))

    def _settle(self) -> None:
        if self._waiting.size:
            self._count_in(self._waiting)
            self._waiting = self._waiting[:0]

    def growing_moments(self) -> list[Moments]:
        """The moments of one random part of the images, of two, and so on; the last is of all."""
        self._settle()
        parts = [part for part in self._parts if part is not None]
        return [joined(parts[:number]) for number in range(1, len(parts) + 1)]

    @property
    def moments(self) -> Moments:
        """The moments of all; there must be one at least."""
        return self.growing_moments()[-1]

    @property
    def unit_moments(self) -> Moments:
        """The moments of all with length 1."""
        self._settle()
        assert self._units is not None
        return self._units

    @property
    def every(self) -> np.ndarray:
        """All features, float32 [n, d], mapped from the file."""
        assert self._file is not None
        return np.memmap(self._file, np.float32, "r", shape=(self.count, self.dimensions))


def _with(moments: Moments | None, rows: np.ndarray) -> Moments:
    own = Moments.of(rows)
    return own if moments is None else moments.joined(own)
