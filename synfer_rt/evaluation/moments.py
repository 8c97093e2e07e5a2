"""Mean and covariance of features, added up piece by piece without loss of precision."""

from __future__ import annotations

from dataclasses import dataclass
from functools import reduce
from typing import Self

import numpy as np


@dataclass(frozen=True)
class Moments:
    """The number of rows, their mean [d] and their scatter [d, d], both float64.

    The scatter is the sum of the outer products of deviations from the mean.
    """

    count: int
    mean: np.ndarray
    scatter: np.ndarray

    @classmethod
    def of(cls, features: np.ndarray) -> Self:
        """Of rows [n, d], n at least 1."""
        rows = np.asarray(features, np.float64)
        mean = rows.mean(0)
        apart = rows - mean
        return cls(len(rows), mean, apart.T @ apart)

    def joined(self, other: Moments) -> Moments:
        """Of the rows of both (Chan, Golub and LeVeque, The American Statistician 37, 1983)."""
        count = self.count + other.count
        apart = other.mean - self.mean
        return Moments(
            count,
            self.mean + apart * (other.count / count),
            self.scatter
            + other.scatter
            + np.outer(apart, apart) * (self.count * other.count / count),
        )

    @property
    def covariance(self) -> np.ndarray:
        """Unbiased, float64 [d, d]; it needs two rows."""
        return self.scatter / (self.count - 1)

    @property
    def second_moment(self) -> np.ndarray:
        """The mean outer product of the rows, float64 [d, d]."""
        return self.scatter / self.count + np.outer(self.mean, self.mean)


def joined(several: list[Moments]) -> Moments:
    """The moments of the rows of `several`, at least one."""
    return reduce(Moments.joined, several)
