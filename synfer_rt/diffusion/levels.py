"""From which signal and noise to which each step of a solver goes, and how much noise is fresh."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np

from synfer_rt.diffusion.schedule import Schedule
from synfer_rt.diffusion.timesteps import (
    DISTILLED,
    EULERS,
    noise_levels,
    of_distillation,
    spaced,
)

_CLAMPED_TERMINAL_ALPHA_BAR = 2.0**-24


@dataclass(frozen=True)
class Step:
    """From `signal`, `noise` to `next_signal`, `next_noise`.

    `fresh` is the standard deviation of the part of the next noise that is drawn anew, after the
    step. `out` is c_out of a consistency model, the factor of the clean image; that of the latents
    is c_skip = 1 - out^2.
    """

    signal: float
    noise: float
    next_signal: float
    next_noise: float
    fresh: float = 0.0
    out: float = 1.0

    @property
    def kept(self) -> float:
        """The standard deviation of the part of the next noise that is the predicted noise."""
        return math.sqrt(max(self.next_noise**2 - self.fresh**2, 0.0))

    @property
    def log_snr(self) -> float:
        """lambda, half the logarithm of the signal-to-noise ratio, at the start."""
        return math.log(self.signal / self.noise)

    @property
    def h(self) -> float:
        """The length of the step in lambda."""
        return math.log(self.next_signal / self.next_noise) - self.log_snr


def spread(
    solver: str, schedule: Schedule, steps: int, strength: float, eta: float
) -> tuple[np.ndarray, list[Step]]:
    """The timesteps float64 [steps] that a solver visits by itself, and the steps between them.

    Raises UserError for more steps than fit.
    """
    alpha_bar = schedule.alphas_cumprod
    span = round(strength * len(alpha_bar))
    if solver in DISTILLED:
        times = of_distillation(solver, schedule, steps, strength)
        return times, through(times, solver, schedule, eta)
    if solver == "ddim" and schedule.sigma_spacing is None:
        times = spaced(solver, schedule, steps, span)
        if span < len(alpha_bar):
            return times, through(times, solver, schedule, eta)
        # DDIM of diffusers goes back by T // steps whatever the spacing, so with `linspace` and
        # `trailing` a step may not end at the next timestep.
        back = times.astype(int) - span // steps
        there = np.where(back >= 0, alpha_bar[np.maximum(back, 0)], _end(schedule))
        return times, _steps(alpha_bar[times.astype(int)], there)
    times, sigmas = noise_levels(solver, schedule, _ratio(schedule), steps, span)
    return times, _down(sigmas, solver, schedule)


def through(timesteps: np.ndarray, solver: str, schedule: Schedule, eta: float) -> list[Step]:
    """The steps from each of these whole timesteps to the next, and from the last to the end."""
    alpha_bar, whole = schedule.alphas_cumprod, timesteps.astype(int)
    here = alpha_bar[whole]
    if solver == "ddim":
        return _steps(here, np.append(here[1:], _end(schedule)))
    if solver == "lcm":  # c_out of arXiv 2310.04378, section 4.1, with sigma_data 0.5
        scaled = schedule.timestep_scaling * timesteps
        there = np.append(here[1:], 1.0)
        return _steps(here, there, 1 - there, scaled / np.sqrt(scaled**2 + 0.25))
    if solver == "tcd":
        # A step denoises to s and adds noise up to the next timestep. The product is in float32
        # as in diffusers: its last bit can decide s.
        following = np.append(timesteps[1:], 0).astype(np.float32)
        s = alpha_bar[np.floor(np.float32(1 - eta) * following).astype(int)]
        there = alpha_bar[following.astype(int)]
        return _steps(here, there, 1 - there / s)
    sigmas = _ratio(schedule)[whole]
    return _down(sigmas, solver, replace(schedule, sigma_spacing=None))


def _end(schedule: Schedule) -> float:
    """alpha_bar at the end of DDIM."""
    to_one = schedule.set_alpha_to_one and schedule.final_sigmas_type == "zero"
    return 1.0 if to_one else float(schedule.alphas_cumprod[0])


def _ratio(schedule: Schedule) -> np.ndarray:
    """The noise level of each training timestep, sigma in the variance-exploding frame.

    It is infinite where alpha_bar is 0; diffusers puts 2**-24 there.
    """
    alpha_bar = schedule.alphas_cumprod
    alpha_bar = np.where(alpha_bar == 0, _CLAMPED_TERMINAL_ALPHA_BAR, alpha_bar)
    return np.sqrt((1 - alpha_bar) / alpha_bar)


def _down(sigmas: np.ndarray, solver: str, schedule: Schedule) -> list[Step]:
    """The steps from each of these noise levels to the next, and from the last to the end."""
    last = sigmas[-1]
    if solver != "unipc" or schedule.sigma_spacing is None:
        last = min(_ratio(schedule)[0], last)
    following = np.append(sigmas[1:], 0.0 if schedule.final_sigmas_type == "zero" else last)
    here, there = 1 / (1 + sigmas**2), 1 / (1 + following**2)
    fresh = np.zeros(len(sigmas))
    if solver in ("euler-ancestral", "dpmpp-sde"):  # DDIM's eq. 16 with eta = 1
        fresh = (1 - there) * (1 - (following / sigmas) ** 2)
    way = _steps(here, there, fresh)
    if solver in EULERS:  # the noise that they leave is in the variance-exploding frame
        end, signal = way[-1], way[-1].next_signal
        way[-1] = replace(
            end, next_signal=1.0, next_noise=end.next_noise / signal, fresh=end.fresh / signal
        )
    return way


def _steps(
    here: np.ndarray,
    there: np.ndarray,
    fresh: np.ndarray | None = None,
    out: np.ndarray | None = None,
) -> list[Step]:
    """Steps from alpha_bar `here` to `there`; `fresh` is the variance of new noise, by default 0.

    `out` are the factors of the clean image, by default 1.
    """
    fresh = np.zeros(len(here)) if fresh is None else fresh
    out = np.ones(len(here)) if out is None else out
    return [
        Step(math.sqrt(a), math.sqrt(1 - a), math.sqrt(b), math.sqrt(1 - b), math.sqrt(f), c)
        for a, b, f, c in zip(*(x.tolist() for x in (here, there, fresh, out)), strict=True)
    ]
