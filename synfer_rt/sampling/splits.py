"""Splits of a dataset, such as train and validation, that share no start face."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from synfer_rt import ranges
from synfer_rt.bundle import Layouts
from synfer_rt.sampling.apportionment import apportion, turns


@dataclass(frozen=True)
class Split:
    """One of several splits: its `name`, and the `weights` of all of them by their names."""

    name: str
    weights: Mapping[str, float]

    @property
    def settings(self) -> dict[str, Any]:
        """The split as JSON values."""
        return {"split": self.name, "splits": dict(self.weights)}

    def seed(self, seed: int) -> int:
        """The seed of this split in a plan with `seed`: another for each split.

        So no two images of the splits share their noise or other random numbers, whatever their
        indices.
        """
        digest = hashlib.sha256(f"{seed} {self.name}".encode()).digest()
        return int.from_bytes(digest[:8]) & ranges.LARGEST_SEED

    def rows(self, bank: Layouts) -> Sequence[int]:
        """The rows of the bank that this split starts from, of which no other has any.

        Each split has its share of the faces of each age, gender and ancestry, and one face at
        least; the bank has as many faces as there are splits, or more.
        """
        spare = len(bank) - len(self.weights)
        counts = [1 + more for more in apportion(spare, list(self.weights.values()))]
        alike = np.lexsort((bank.ancestry, bank.gender, bank.age))
        return sorted(alike[turns(counts) == list(self.weights).index(self.name)].tolist())
