"""Classifier-free guidance in an interval of noise levels (Kynkäänniemi et al., arXiv 2404.07724).

A noise level sigma is the ratio of noise to signal in the latents, sqrt((1 - alpha_bar) /
alpha_bar), that of the variance-exploding frame (EDM, arXiv 2206.00364).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, cast

import numpy as np

from synfer_rt import ranges
from synfer_rt.diffusion.solvers import Trajectory
from synfer_rt.errors import UserError


@dataclass(frozen=True)
class GuidanceInterval:
    """Guidance acts in the steps that start at a noise level above `low` and at most `high`.

    `low` is 0 or more, `high` above it and infinite where there is no upper limit;
    `guidance_interval` checks both.
    """

    low: float
    high: float

    @property
    def settings(self) -> list[float | None]:
        """[low, high] for JSON, which has no infinity: no upper limit is null."""
        return [self.low, None if math.isinf(self.high) else self.high]

    @property
    def recorded(self) -> dict[str, float]:
        """`low` and `high` for a record, whose fields are always numbers: no upper limit is 0."""
        return {"low": self.low, "high": 0.0 if math.isinf(self.high) else self.high}

    def __str__(self) -> str:
        return f"{self.low:g}:{'' if math.isinf(self.high) else f'{self.high:g}'}"


def guidance_interval(value: Any) -> GuidanceInterval | None:
    """The interval that (low, high) means; None for None. Raises UserError unless low < high."""
    if value is None:
        return None
    limits = cast("Sequence[Any]", value) if isinstance(value, (tuple, list)) else ()
    if len(limits) != 2 or not all(map(ranges.is_number, limits)):
        raise UserError(
            "`guidance_interval` must be two noise levels, such as (0.3, 5), got "
            f"{ranges.shown(value)}."
        )
    low, high = map(float, limits)
    if not 0 <= low < high:
        raise UserError(
            "`guidance_interval` must go from a noise level of 0 or more to a higher one, got "
            f"{low:g}:{high:g}."
        )
    return GuidanceInterval(low, high)


def levels(trajectory: Trajectory, prediction_type: str) -> list[tuple[float, float]]:
    """Signal and noise of the latents at the start of each step, of a trajectory of a solver.

    They follow from row 1 of a solver's matrix, the clean image `a * latents + b * prediction`.
    """
    clean = trajectory.coefficients[:, 1, :2].astype(np.float64).tolist()
    if prediction_type == "epsilon":
        return [(1 / a, -b / a) for a, b in clean]
    return [(a, -b) for a, b in clean]


def noise_levels(trajectory: Trajectory, prediction_type: str) -> list[float]:
    """sigma at the start of each step; infinite at zero signal-to-noise ratio."""
    pairs = levels(trajectory, prediction_type)
    return [noise / signal if signal else math.inf for signal, noise in pairs]


def guided_within(
    trajectory: Trajectory, interval: GuidanceInterval, prediction_type: str
) -> Trajectory:
    """The trajectory with guidance in the steps of the interval alone.

    Raises UserError for an interval that holds no step.
    """
    sigmas = noise_levels(trajectory, prediction_type)
    guided = np.array([interval.low < sigma <= interval.high for sigma in sigmas])
    if not guided.any():
        raise UserError(
            f"`guidance_interval` {interval} holds none of the steps, whose noise levels are "
            f"{', '.join(f'{sigma:.3g}' for sigma in sigmas)}; widen it, or write `guidance=1`."
        )
    return replace(trajectory, guided=guided)
