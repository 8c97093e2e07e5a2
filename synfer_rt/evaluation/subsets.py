"""A random subset of rows that come one after the other, whose number is not known."""

from __future__ import annotations

import numpy as np


class Subset:
    """At most `size` of the rows that are added, each as probable as any other.

    Each row draws a number, and those with the smallest numbers stay. So the subset depends on the
    order of the rows and on `seed`, not on how many are added at once.
    """

    def __init__(self, size: int, seed: int) -> None:
        self.size = size
        self._random = np.random.default_rng(seed)
        self._added, self._waiting, self._limit = 0, 0, 1.0
        self._is_cut = False
        self._parts: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []

    def add(self, rows: np.ndarray) -> None:
        """Add rows [n, d]."""
        draws = self._random.random(len(rows))
        stay = draws < self._limit
        numbers = self._added + np.arange(len(rows))
        self._added += len(rows)
        self._parts.append((draws[stay], numbers[stay], np.asarray(rows[stay], np.float32)))
        self._waiting += int(stay.sum())
        self._is_cut = False
        if self._waiting > 2 * self.size:
            self._cut()

    def _cut(self) -> None:
        """Leave the rows that stay, as one part in the order of their draws."""
        if self._is_cut:
            return
        draws, numbers, rows = (np.concatenate(part) for part in zip(*self._parts, strict=True))
        order = np.argsort(draws)[: self.size]
        self._parts = [(draws[order], numbers[order], rows[order])]
        self._waiting, self._is_cut = len(order), True
        if len(order) == self.size:
            self._limit = float(draws[order[-1]])

    @property
    def rows(self) -> np.ndarray:
        """The rows float32 [n, d], in random order."""
        self._cut()
        return self._parts[0][2]

    @property
    def numbers(self) -> np.ndarray:
        """Which of the added rows they are, counted from 0: int64 [n], in the order of `rows`."""
        self._cut()
        return self._parts[0][1]
