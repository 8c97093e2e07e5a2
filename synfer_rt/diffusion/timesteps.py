"""Which timesteps a solver visits: those of its namesake in diffusers, or those that are given."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any, cast

import numpy as np

from synfer_rt import ranges
from synfer_rt.diffusion.schedule import Schedule, space_sigmas
from synfer_rt.errors import UserError

EULERS = ("euler", "euler-ancestral")
"""The solvers in the variance-exploding frame; they alone visit fractional timesteps."""
DISTILLED = ("lcm", "tcd")
"""The solvers for distilled models, which visit timesteps of the distillation."""


def decreasing(timesteps: Any) -> tuple[int, ...]:
    """Timesteps as a user gives them. Raises UserError unless they are whole and decrease."""
    several = isinstance(timesteps, (Sequence, np.ndarray)) and not isinstance(timesteps, str)
    numbers = list(cast("Sequence[Any]", timesteps)) if several else []
    example = "such as 999, 749, 499, 249"
    if not numbers or not all(ranges.is_whole(number) for number in numbers):
        raise UserError(f"`timesteps` must be whole numbers, {example}, got {timesteps!r}.")
    found = tuple(int(number) for number in numbers)
    if any(after >= before for before, after in pairwise(found)):
        raise UserError(f"`timesteps` must decrease, {example}, got {_listed(found)}.")
    return found


def given(timesteps: Any, steps: int | None, count: int, span: int, strength: float) -> np.ndarray:
    """Timesteps that a user gives, float64 [steps], checked.

    The model has `count` timesteps, of which those below `span` are run at `strength`. Raises
    UserError for anything but whole numbers in [0, span) that decrease, and for another `steps`.
    """
    found = decreasing(timesteps)
    if found[0] >= count:
        raise UserError(
            f"`timesteps` must lie from 0 to {count - 1}, the timesteps of this model, got "
            f"{_listed(found)}."
        )
    if found[0] >= span:
        raise UserError(
            f"`timesteps` must be below {span}, where the noise schedule begins at strength "
            f"{strength:g}, got {_listed(found)}; lower them, or raise the strength."
        )
    if steps is not None and (not ranges.is_whole(steps) or steps != len(found)):
        raise UserError(
            f"`steps` is {ranges.shown(steps)}, but there are {len(found)} `timesteps`; leave out "
            "`steps`."
        )
    return np.array(found, np.float64)


def _listed(timesteps: Sequence[int]) -> str:
    return ", ".join(map(str, timesteps))


def of_distillation(solver: str, schedule: Schedule, steps: int, strength: float) -> np.ndarray:
    """Timesteps float64 [steps] from those that an LCM or TCD model was distilled at.

    The distillation visits every k-th timestep (arXiv 2310.04378, section 4.3); `strength` is the
    part of them that is run, and the steps are spread evenly over it. Raises UserError for more
    steps than there are.
    """
    count = len(schedule.alphas_cumprod)
    original = min(schedule.original_inference_steps, count)
    every = count // original
    visited = (np.arange(1, int(original * strength) + 1) * every - 1)[::-1]
    if steps > len(visited):
        raise UserError(
            f"{steps} steps of {solver} do not fit into the {len(visited)} timesteps at which the "
            f"model was distilled at strength {strength:g}; lower `steps`."
        )
    rows = np.floor(np.linspace(0, len(visited), steps, endpoint=False)).astype(int)
    return visited[rows].astype(np.float64)


def noise_levels(
    solver: str, schedule: Schedule, ratio: np.ndarray, steps: int, span: int
) -> tuple[np.ndarray, np.ndarray]:
    """The timesteps that the model is given and the noise levels, both float64 [steps].

    `ratio`, of noise to signal, is the level of each training timestep. Levels that are spaced by
    `sigma_spacing` lie between timesteps. Each solver gives the model the timestep that its
    namesake in diffusers does: Euler a fractional one, the others a whole one.
    """
    numbers, spacing = np.arange(len(ratio)), schedule.sigma_spacing
    if spacing is None or solver in EULERS:
        timesteps = spaced(solver, schedule, steps, span)
        sigmas = np.interp(timesteps, numbers, ratio)
    else:
        timesteps, sigmas = numbers[[span - 1, 0]], ratio[[span - 1, 0]]
    if spacing is None:
        return timesteps, sigmas
    ratio = ratio.astype(np.float32)  # as in diffusers: the last bit can decide the timestep
    most, least = sigmas[[0, -1]].astype(np.float32).tolist()
    if schedule.sigma_max is not None and span == len(ratio):
        most = schedule.sigma_max
    if schedule.sigma_min is not None:
        least = schedule.sigma_min
    sigmas = space_sigmas(spacing, most, least, steps)
    timesteps = np.interp(np.log(sigmas), np.log(ratio), numbers)
    if solver in EULERS:
        return timesteps, sigmas
    cosine = schedule.beta_schedule == "squaredcos_cap_v2" and solver.startswith("dpmpp")
    below = spacing == "exponential" or cosine
    return np.floor(timesteps) if below else np.round(timesteps), sigmas


def spaced(solver: str, schedule: Schedule, steps: int, span: int) -> np.ndarray:
    """Timesteps float64 [steps] in [0, span), decreasing (spacings: arXiv 2305.08891, table 2).

    The solvers in log-SNR leave out the last point of `leading` and `linspace`, since they go to
    zero noise from the point before it. Only Euler visits fractional timesteps. A part of the
    schedule is spaced `trailing`, the only spacing that begins where the part does. Raises
    UserError for more steps than fit.
    """
    points = steps if solver in ("ddim", *EULERS) else steps + 1
    whole = span == len(schedule.alphas_cumprod)
    spacing = schedule.timestep_spacing if whole else "trailing"
    if spacing == "trailing":
        times = np.round(np.arange(span, 0, -span / steps))[:steps] - 1
    elif spacing == "leading":
        times = (np.arange(points) * (span // points))[::-1][:steps] + schedule.steps_offset
    else:
        times = np.linspace(0, span - 1, points)[::-1][:steps]
        times = times.astype(np.float32) if solver in EULERS else np.round(times)
    if (
        len(times) != steps
        or times[0] >= len(schedule.alphas_cumprod)
        or np.any(np.diff(times) >= 0)
    ):
        raise UserError(
            f"{steps} steps of {solver} do not fit into {span} timesteps with "
            f"{schedule.timestep_spacing} spacing; lower `steps`."
        )
    return times.astype(np.float64)
