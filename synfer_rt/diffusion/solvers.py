"""Diffusion solvers as matrices.

A step of a linear multistep solver is `coefficients @ [latents, prediction, history_1 ..
history_K]`; its rows are the next latents and the next history. The whole solver (the conversion of
epsilon or v to the clean image, the steps in log-SNR, predictor and corrector) is folded into that
matrix in float64, so the engine that applies it knows neither solver nor prediction type.

In this module a vector of K + 2 numbers is such a row, and the formulas of the papers are written
on rows. Signal and noise are sqrt(alpha_bar) and sqrt(1 - alpha_bar) of a timestep.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace

import numpy as np

from synfer_rt import ranges
from synfer_rt.diffusion.schedule import Schedule, space_sigmas
from synfer_rt.errors import UserError, nearest

SOLVERS: dict[str, str] = {
    "ddim": "DDIM (arXiv 2010.02502, eq. 12, without noise)",
    "euler": "Euler's method on the probability-flow ODE (EDM, arXiv 2206.00364, algorithm 1)",
    "dpmpp-2m": "DPM-Solver++ of second order, multistep (arXiv 2211.01095, algorithm 2)",
    "dpmpp-3m": "DPM-Solver++ of third order, multistep (arXiv 2211.01095, appendix B)",
    "unipc": "UniPC of order 2, predictor and corrector, B(h) = exp(h) - 1 (arXiv 2302.04867)",
}
_ORDERS = {
    "ddim": 1,
    "euler": 1,
    "dpmpp-2m": 2,
    "dpmpp-3m": 3,
    "unipc": 2,
}
PREDICTION_TYPES = ("epsilon", "v_prediction")
HISTORY_SLOTS = 3
"""K. UniPC of order 2 needs 3: two earlier clean images and the last corrected latents."""

_CLAMPED_TERMINAL_ALPHA_BAR = 2.0**-24
_NO_LENGTH = 1e-6
"""A step of less, in log-SNR, has no length: levels that end in sigma_min can contain it twice."""

_UNSET = np.empty(0)
"""The default of a field of `Trajectory` whose length is the number of steps."""


@dataclass(frozen=True)
class Trajectory:
    """All N steps of a solver from noise to image, the same for every sample of a run.

    `timesteps` is float32 [N], never increasing; `coefficients` float32 [N, K+1, K+2]. Sampling
    starts from `signal * layout + noise * eps` with eps standard normal. At strength 1 signal is 0
    and noise 1, for Euler sometimes a little less. All latents are in the variance-preserving frame
    (as the UNet gets them).

    `noises` float32 [N] are the standard deviations of the fresh noise that is added to the latents
    after each step, by default 0. `guided` bool [N] says in which steps classifier-free guidance
    acts, by default in all. `reused` bool [N] says which steps take the deep features of the last
    guided step that computed them (feature_caching.py), by default none. `denoiser` is the name of
    the engine that predicts.
    """

    timesteps: np.ndarray = field(repr=False, compare=False)
    coefficients: np.ndarray = field(repr=False, compare=False)
    signal: float
    noise: float
    noises: np.ndarray = field(default_factory=lambda: _UNSET, repr=False, compare=False)
    guided: np.ndarray = field(default_factory=lambda: _UNSET, repr=False, compare=False)
    reused: np.ndarray = field(default_factory=lambda: _UNSET, repr=False, compare=False)
    denoiser: str = "denoiser"

    def __post_init__(self) -> None:
        steps = len(self.timesteps)
        for name, default in (
            ("noises", np.zeros(steps, "f4")),
            ("guided", np.ones(steps, bool)),
            ("reused", np.zeros(steps, bool)),
        ):
            if getattr(self, name) is _UNSET:
                object.__setattr__(self, name, default)

    @property
    def is_stochastic(self) -> bool:
        """Whether fresh noise is added after any step."""
        return bool(self.noises.any())


@dataclass(frozen=True)
class _Step:
    """From `signal`, `noise` to `next_signal`, `next_noise`."""

    signal: float
    noise: float
    next_signal: float
    next_noise: float

    @property
    def log_snr(self) -> float:
        """lambda, half the logarithm of the signal-to-noise ratio, at the start."""
        return math.log(self.signal / self.noise)

    @property
    def h(self) -> float:
        """The length of the step in lambda."""
        return math.log(self.next_signal / self.next_noise) - self.log_snr


def trajectory(
    solver: str,
    schedule: Schedule,
    steps: int,
    strength: float = 1.0,
    prediction_type: str = "epsilon",
) -> Trajectory:
    """The matrices of `steps` solver steps.

    `solver` is a key of SOLVERS, `prediction_type` one of PREDICTION_TYPES (what the UNet
    predicts). `strength` in (0, 1] is the part of the training timesteps that is run. Below 1 the
    steps begin at the last timestep of that part, whatever their number, and lie evenly from there
    to 0. At 1 each solver visits the timesteps of its namesake in diffusers and begins with the
    same noise, of standard deviation 1 or, for Euler with `linspace` and `trailing`,
    sqrt(1 - alpha_bar). Both approximate x_T = sqrt(alpha_bar) * clean + sqrt(1 - alpha_bar) * eps:
    the first for clean latents of unit variance, the second without them (EDM, algorithm 1, line
    2).

    Raises UserError for an unknown solver (naming the nearest), a strength outside (0, 1] or below
    one timestep, more steps than timesteps, and a first step at zero SNR with epsilon prediction.
    """
    _check(solver, strength, prediction_type)
    span = round(strength * len(schedule.alphas_cumprod))
    if not span:
        least = 1 / len(schedule.alphas_cumprod)
        raise UserError(
            f"`strength` must be at least {least:g}, one timestep of this model, got {strength:g}."
        )
    if not ranges.is_whole(steps, 1, span):
        raise UserError(
            f"`steps` must be a whole number from 1 to {span}, the timesteps of this model at "
            f"strength {strength:g}, got {steps!r}."
        )
    timesteps, way = _way(solver, schedule, steps, span)
    if prediction_type == "epsilon" and way[0].signal == 0:
        raise UserError(
            f"A model that predicts epsilon cannot find the image at zero SNR, where {solver} "
            "starts; use another `solver`."
        )
    coefficients = np.stack(
        [_matrix(solver, way, i, prediction_type) for i in range(steps)]
    ).astype(np.float32)
    signal, noise = (way[0].signal, way[0].noise) if strength < 1 else (0.0, 1.0)
    if solver == "euler" and schedule.timestep_spacing != "leading":
        noise = way[0].noise
    return Trajectory(timesteps.astype(np.float32), coefficients, signal, noise)


def _check(solver: object, strength: object, prediction_type: object) -> None:
    if not isinstance(solver, str) or solver not in SOLVERS:
        raise UserError(
            f"Unknown solver {solver!r}; the nearest is {nearest(str(solver), SOLVERS)} "
            f"(known are {', '.join(SOLVERS)})."
        )
    ranges.part("strength", strength)
    if prediction_type not in PREDICTION_TYPES:
        known = " and ".join(PREDICTION_TYPES)
        raise UserError(f"Unknown prediction type {prediction_type!r}; known are {known}.")


def _way(solver: str, schedule: Schedule, steps: int, span: int) -> tuple[np.ndarray, list[_Step]]:
    """The timesteps float64 [steps] that the model is given, and the steps between them."""
    alpha_bar = schedule.alphas_cumprod
    zero = schedule.final_sigmas_type == "zero"
    if solver == "ddim" and schedule.sigma_spacing is None:
        timesteps = _timesteps(solver, schedule, steps, span)
        here = alpha_bar[timesteps.astype(int)]
        last = 1.0 if zero and schedule.set_alpha_to_one else alpha_bar[0]
        there = np.append(here[1:], last)
        if span == len(alpha_bar):
            # DDIM of diffusers goes back by span // steps whatever the spacing, so with `linspace`
            # and `trailing` a step may not end at the next timestep.
            back = timesteps.astype(int) - span // steps
            there = np.where(back >= 0, alpha_bar[np.maximum(back, 0)], last)
    else:
        # Log-SNR is infinite where alpha_bar is 0; diffusers puts 2**-24 there.
        alpha_bar = np.where(alpha_bar == 0, _CLAMPED_TERMINAL_ALPHA_BAR, alpha_bar)
        ratio = np.sqrt((1 - alpha_bar) / alpha_bar)
        timesteps, sigmas = _sigmas(solver, schedule, ratio, steps, span)
        spaced = solver == "unipc" and schedule.sigma_spacing is not None
        least = sigmas[-1] if spaced else min(ratio[0], sigmas[-1])
        here = 1 / (1 + sigmas**2)
        there = np.append(here[1:], 1.0 if zero else 1 / (1 + least**2))
    way = [
        _Step(math.sqrt(a), math.sqrt(1 - a), math.sqrt(b), math.sqrt(1 - b))
        for a, b in zip(map(float, here), map(float, there), strict=True)
    ]
    if solver == "euler":  # the noise that it leaves is in the variance-exploding frame
        end = way[-1]
        way[-1] = replace(end, next_signal=1.0, next_noise=end.next_noise / end.next_signal)
    return timesteps, way


def _sigmas(
    solver: str, schedule: Schedule, ratio: np.ndarray, steps: int, span: int
) -> tuple[np.ndarray, np.ndarray]:
    """The timesteps that the model is given and the noise levels, both float64 [steps].

    `ratio`, of noise to signal, is the level of each training timestep. Levels that are spaced by
    `sigma_spacing` lie between timesteps. Each solver gives the model the timestep that its
    namesake in diffusers does: Euler a fractional one, the others a whole one.
    """
    numbers, spacing = np.arange(len(ratio)), schedule.sigma_spacing
    if spacing is None or solver == "euler":
        timesteps = _timesteps(solver, schedule, steps, span)
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
    if solver == "euler":
        return timesteps, sigmas
    cosine = schedule.beta_schedule == "squaredcos_cap_v2" and solver.startswith("dpmpp")
    below = spacing == "exponential" or cosine
    return np.floor(timesteps) if below else np.round(timesteps), sigmas


def _timesteps(solver: str, schedule: Schedule, steps: int, span: int) -> np.ndarray:
    """Timesteps [steps] in [0, span), decreasing (spacings: arXiv 2305.08891, table 2).

    The solvers in log-SNR leave out the last point of `leading` and `linspace`, since they go to
    zero noise from the point before it. Only Euler visits fractional timesteps. A part of the
    schedule is spaced `trailing`, the only spacing that begins where the part does. Raises
    UserError for more steps than fit.
    """
    points = steps if solver in ("ddim", "euler") else steps + 1
    whole = span == len(schedule.alphas_cumprod)
    spacing = schedule.timestep_spacing if whole else "trailing"
    if spacing == "trailing":
        times = np.round(np.arange(span, 0, -span / steps))[:steps] - 1
    elif spacing == "leading":
        times = (np.arange(points) * (span // points))[::-1][:steps] + schedule.steps_offset
    else:
        times = np.linspace(0, span - 1, points)[::-1][:steps]
        times = times.astype(np.float32) if solver == "euler" else np.round(times)
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


def _matrix(solver: str, way: list[_Step], i: int, prediction_type: str) -> np.ndarray:
    """Step i as a matrix float64 [K+1, K+2].

    The history holds the clean images predicted one and two steps ago and, for UniPC, the
    corrected latents of the previous step.
    """
    latents, prediction, clean_1, clean_2, corrected = np.eye(HISTORY_SLOTS + 2)
    step = way[i]
    if prediction_type == "epsilon":
        clean = (latents - step.noise * prediction) / step.signal
    else:
        clean = step.signal * latents - step.noise * prediction
    if solver == "unipc" and i > 0:
        latents = _corrector(corrected, clean, clean_1, clean_2, way, i)

    remaining = len(way) - i
    order = min(_ORDERS[solver], i + 1)
    if remaining == 1 and (solver == "unipc" or len(way) < 15 or _needs_first_order(step)):
        order = 1
    elif remaining == 2 and len(way) < 15:
        order = min(order, 2)

    row = _first_order(latents, clean, step)
    if order == 2:
        row += _second_order_term(clean, clean_1, way, i)
    elif order == 3:
        row += _third_order_terms(clean, clean_1, clean_2, way, i)
    return np.stack([row, clean, clean_1, latents])


def _needs_first_order(step: _Step) -> bool:
    """Whether higher orders are undefined: zero noise is infinitely far away in log-SNR, and a step
    without length has no curvature."""
    return step.next_noise == 0 or abs(step.h) < _NO_LENGTH


def _first_order(latents: np.ndarray, clean: np.ndarray, step: _Step) -> np.ndarray:
    """One step along the line through `clean` and `latents`.

    This is DDIM, Euler's method in the variance-exploding frame and DPM-Solver++ of first order;
    they differ in the timesteps that they visit.
    """
    ratio = step.next_noise / step.noise
    return ratio * latents + (step.next_signal - step.signal * ratio) * clean


def _second_order_term(
    clean: np.ndarray, clean_1: np.ndarray, way: list[_Step], i: int
) -> np.ndarray:
    """What order 2 adds; it is the same for DPM-Solver++ 2M and UniP."""
    h, h_1 = way[i].h, way[i].log_snr - way[i - 1].log_snr
    slope = (clean - clean_1) * (h / h_1)
    return -way[i].next_signal * math.expm1(-h) * 0.5 * slope


def _third_order_terms(
    clean: np.ndarray, clean_1: np.ndarray, clean_2: np.ndarray, way: list[_Step], i: int
) -> np.ndarray:
    """What order 3 of DPM-Solver++ adds: the clean image's first two derivatives in lambda."""
    h = way[i].h
    r_0 = (way[i].log_snr - way[i - 1].log_snr) / h
    r_1 = (way[i - 1].log_snr - way[i - 2].log_snr) / h
    slope_0, slope_1 = (clean - clean_1) / r_0, (clean_1 - clean_2) / r_1
    curvature = (slope_0 - slope_1) / (r_0 + r_1)
    slope = slope_0 + r_0 * curvature
    phi = math.expm1(-h)
    return way[i].next_signal * ((phi / h + 1) * slope - ((phi + h) / h**2 - 0.5) * curvature)


def _corrector(
    corrected: np.ndarray,
    clean: np.ndarray,
    clean_1: np.ndarray,
    clean_2: np.ndarray,
    way: list[_Step],
    i: int,
) -> np.ndarray:
    """UniC: the previous step anew, with the clean image at its end, which is known now.

    Its order is that of the predictor of the previous step (arXiv 2302.04867, algorithm 1).
    """
    step = way[i - 1]
    phi = math.expm1(-step.h)
    base = _first_order(corrected, clean_1, step)
    if i == 1:
        return base - step.next_signal * phi * 0.5 * (clean - clean_1)
    r = (way[i - 2].log_snr - step.log_snr) / step.h
    b_1 = (phi / -step.h - 1) / phi
    b_2 = 2 * ((phi / -step.h - 1) / -step.h - 0.5) / phi
    rho_1, rho_2 = np.linalg.solve([[1.0, 1.0], [r, 1.0]], [b_1, b_2])
    residual = rho_1 * (clean_2 - clean_1) / r + rho_2 * (clean - clean_1)
    return base - step.next_signal * phi * residual
