"""Distributions of action units to draw the AUs of a class from, other than its prototypes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

DRAWS = 41
"""The most random numbers that a distribution takes: one for each unit of OpenGraphAU."""


class AuDistribution(Protocol):
    """Draws intensities in [0, 1] by AU name from DRAWS numbers in [0, 1)."""

    def draw(self, uniforms: Sequence[float]) -> Mapping[str, float]:
        """The intensities of one image."""
        ...

    @property
    def settings(self) -> dict[str, Any]:
        """The distribution as JSON values."""
        ...


@dataclass(frozen=True)
class AuRanges:
    """Each unit is drawn uniformly from `low` to `high`, on its own; at most DRAWS units."""

    units: Mapping[str, tuple[float, float]]

    def draw(self, uniforms: Sequence[float]) -> dict[str, float]:
        """An intensity for every unit."""
        return {
            name: low + (high - low) * u
            for (name, (low, high)), u in zip(self.units.items(), uniforms, strict=False)
        }

    @property
    def settings(self) -> dict[str, Any]:
        """`ranges`, the low and the high end by unit."""
        return {"ranges": {name: list(ends) for name, ends in self.units.items()}}


@dataclass(frozen=True)
class AuRows:
    """Rows of intensities, such as measured ones, each as likely as the others.

    A row is the text of one number for each of `units`, with spaces between them.
    """

    units: tuple[str, ...]
    rows: tuple[str, ...]

    def draw(self, uniforms: Sequence[float]) -> dict[str, float]:
        """The intensities of one row, without those that are 0."""
        row = map(float, self.rows[int(uniforms[0] * len(self.rows))].split())
        return {name: value for name, value in zip(self.units, row, strict=True) if value}

    @property
    def settings(self) -> dict[str, Any]:
        """`units` and `rows`."""
        return {"units": list(self.units), "rows": list(self.rows)}
