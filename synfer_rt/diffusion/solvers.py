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
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from synfer_rt import ranges
from synfer_rt.diffusion.levels import Step, spread, through
from synfer_rt.diffusion.schedule import Schedule
from synfer_rt.diffusion.timesteps import EULERS, given
from synfer_rt.errors import UserError, nearest

SOLVERS: dict[str, str] = {
    "ddim": "DDIM (arXiv 2010.02502, eq. 12, without noise)",
    "euler": "Euler's method on the probability-flow ODE (EDM, arXiv 2206.00364, algorithm 1)",
    "dpmpp-2m": "DPM-Solver++ of second order, multistep (arXiv 2211.01095, algorithm 2)",
    "dpmpp-3m": "DPM-Solver++ of third order, multistep (arXiv 2211.01095, appendix B)",
    "unipc": "UniPC of order 2, predictor and corrector, B(h) = exp(h) - 1 (arXiv 2302.04867)",
    "euler-ancestral": "Euler's method with fresh noise (arXiv 2010.02502, eq. 12 and 16, eta 1)",
    "dpmpp-sde": "SDE-DPM-Solver++ of second order, multistep, with fresh noise (arXiv 2211.01095)",
    "lcm": "multistep sampling of latent consistency models, with fresh noise (arXiv 2310.04378)",
    "tcd": "strategic stochastic sampling of TCD models, with fresh noise (arXiv 2402.19159)",
}
_ORDERS = {
    "ddim": 1,
    "euler": 1,
    "dpmpp-2m": 2,
    "dpmpp-3m": 3,
    "unipc": 2,
    "euler-ancestral": 1,
    "dpmpp-sde": 2,
    "lcm": 1,
    "tcd": 1,
}
PREDICTION_TYPES = ("epsilon", "v_prediction")
ETA = 0.3
"""The share of fresh noise in TCD, by default; diffusers has the same."""
HISTORY_SLOTS = 3
"""K. UniPC of order 2 needs 3: two earlier clean images and the last corrected latents."""

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


def trajectory(
    solver: str,
    schedule: Schedule,
    steps: int | None,
    strength: float = 1.0,
    prediction_type: str = "epsilon",
    timesteps: Sequence[int] | None = None,
    eta: float | None = None,
) -> Trajectory:
    """The matrices of `steps` solver steps, or of one step from each of the given `timesteps`.

    `solver` is a key of SOLVERS, `prediction_type` one of PREDICTION_TYPES (what the UNet
    predicts). `strength` in (0, 1] is the part of the training timesteps that is run. Below 1 the
    steps begin at the last timestep of that part, whatever their number, and lie evenly from there
    to 0. At 1 each solver visits the timesteps of its namesake in diffusers and begins with the
    same noise, of standard deviation 1 or, for Euler with `linspace` and `trailing`,
    sqrt(1 - alpha_bar). Both approximate x_T = sqrt(alpha_bar) * clean + sqrt(1 - alpha_bar) * eps:
    the first for clean latents of unit variance, the second without them (EDM, algorithm 1, line
    2). `lcm` and `tcd` visit some of the timesteps at which the model was distilled.

    `timesteps` decrease and lie in the part that is run; below strength 1 the first of them decides
    signal and noise of the start. `eta` in [0, 1], by default ETA, is the part of the way of each
    step of `tcd` that is fresh noise (gamma in arXiv 2402.19159).

    Raises UserError for an unknown solver (naming the nearest), a strength outside (0, 1] or below
    one timestep, more steps than timesteps, timesteps or an eta that do not fit, and a first step
    at zero SNR with epsilon prediction.
    """
    eta = _check(solver, strength, prediction_type, eta)
    span = _span(schedule, strength)
    if timesteps is not None:
        times = given(timesteps, steps, len(schedule.alphas_cumprod), span, strength)
        way = through(times, solver, schedule, eta)
    elif steps is not None and ranges.is_whole(steps, 1, span):
        times, way = spread(solver, schedule, steps, strength, eta)
    else:
        raise UserError(
            f"`steps` must be a whole number from 1 to {span}, the timesteps of this model at "
            f"strength {strength:g}, got {steps!r}."
        )
    if prediction_type == "epsilon" and way[0].signal == 0:
        raise UserError(
            f"A model that predicts epsilon cannot find the image at zero SNR, where {solver} "
            "starts; use another `solver`."
        )
    matrices = [_matrix(solver, way, i, prediction_type) for i in range(len(way))]
    signal, noise = (way[0].signal, way[0].noise) if strength < 1 else (0.0, 1.0)
    if solver in EULERS and schedule.timestep_spacing != "leading":
        noise = way[0].noise
    return Trajectory(
        times.astype(np.float32),
        np.stack(matrices).astype(np.float32),
        signal,
        noise,
        np.array([step.fresh for step in way], np.float32),
    )


def _span(schedule: Schedule, strength: float) -> int:
    """How many timesteps are run. Raises UserError for less than one."""
    count = len(schedule.alphas_cumprod)
    span = round(strength * count)
    if not span:
        raise UserError(
            f"`strength` must be at least {1 / count:g}, one timestep of this model, got "
            f"{strength:g}."
        )
    return span


def _check(solver: object, strength: object, prediction_type: object, eta: object) -> float:
    """The eta that counts."""
    if not isinstance(solver, str) or solver not in SOLVERS:
        raise UserError(
            f"Unknown solver {solver!r}; the nearest is {nearest(str(solver), SOLVERS)} "
            f"(known are {', '.join(SOLVERS)})."
        )
    ranges.part("strength", strength)
    if prediction_type not in PREDICTION_TYPES:
        known = " and ".join(PREDICTION_TYPES)
        raise UserError(f"Unknown prediction type {prediction_type!r}; known are {known}.")
    if eta is not None and solver != "tcd":
        raise UserError(f"`eta` is a setting of the solver tcd, not of {solver}; leave it out.")
    return ETA if eta is None else ranges.real("eta", eta, 0, 1)


def _matrix(solver: str, way: list[Step], i: int, prediction_type: str) -> np.ndarray:
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

    consistent = step.out * clean + (1 - step.out**2) * latents
    row = _first_order(latents, consistent, step)
    if order == 2:
        row += _second_order_term(clean, clean_1, way, i)
    elif order == 3:
        row += _third_order_terms(clean, clean_1, clean_2, way, i)
    return np.stack([row, clean, clean_1, latents])


def _needs_first_order(step: Step) -> bool:
    """Whether higher orders are undefined: zero noise is infinitely far away in log-SNR, and a step
    without length has no curvature."""
    return step.next_noise == 0 or abs(step.h) < _NO_LENGTH


def _first_order(latents: np.ndarray, clean: np.ndarray, step: Step) -> np.ndarray:
    """One step along the line through `clean` and `latents`.

    This is DDIM, Euler's method in the variance-exploding frame and DPM-Solver++ of first order;
    they differ in the timesteps that they visit. With fresh noise it is eq. 12 of DDIM (arXiv
    2010.02502), and they differ in the amount of that noise, too.
    """
    ratio = step.kept / step.noise
    return ratio * latents + (step.next_signal - step.signal * ratio) * clean


def _second_order_term(
    clean: np.ndarray, clean_1: np.ndarray, way: list[Step], i: int
) -> np.ndarray:
    """What order 2 adds; it is the same for DPM-Solver++ 2M and UniP.

    With fresh noise it is that of SDE-DPM-Solver++, which goes twice as far towards `clean`.
    """
    h, h_1 = way[i].h, way[i].log_snr - way[i - 1].log_snr
    slope = (clean - clean_1) * (h / h_1)
    return -way[i].next_signal * math.expm1(-2 * h if way[i].fresh else -h) * 0.5 * slope


def _third_order_terms(
    clean: np.ndarray, clean_1: np.ndarray, clean_2: np.ndarray, way: list[Step], i: int
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
    way: list[Step],
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
