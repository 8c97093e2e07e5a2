"""Noise schedules: how much of the clean image is left at each training timestep.

With alpha_bar (`alphas_cumprod`), noisy latents are sqrt(alpha_bar) * clean + sqrt(1 - alpha_bar)
* noise (DDPM, arXiv 2006.11239, eq. 4). Names, meanings and rounding are those of diffusers, so
that a model gets exactly the numbers that it was trained with.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import numpy as np

from synfer_rt.errors import UserError

BETA_SCHEDULES = ("linear", "scaled_linear", "squaredcos_cap_v2")
SPACINGS = ("leading", "linspace", "trailing")
SIGMA_SPACINGS = ("karras", "exponential", "lu")
FINAL_SIGMAS = ("zero", "sigma_min")
SCALINGS = (1e-6, 1e6)
"""The least and the largest `timestep_scaling`."""
_RHO = 7.0
"""Rho of the noise levels of Karras et al. (EDM, arXiv 2206.00364, table 1)."""
_REBUILD = "build the bundle again with `synfer-rt build-engines`"


@dataclass(frozen=True)
class Schedule:
    """A noise schedule over T training timesteps, and how a solver spreads its steps over them.

    `alphas_cumprod` is float64 [T], decreasing, in [0, 1); its last value is 0 if the schedule has
    zero terminal SNR. `timestep_spacing` is one of SPACINGS (arXiv 2305.08891, table 2).
    `beta_schedule` is one of BETA_SCHEDULES. With a `sigma_spacing` of SIGMA_SPACINGS the steps are
    spaced by noise level instead of by timestep, from `sigma_max` to `sigma_min`; None takes the
    limits of the schedule. `final_sigmas_type` says where the last step ends: without noise
    ("zero"), or at the noise of timestep 0 ("sigma_min").

    Of a model that was distilled as an LCM or TCD, `original_inference_steps` is the number of
    timesteps that the distillation visited, and `timestep_scaling` the factor of the timestep in
    the boundary condition of an LCM (arXiv 2310.04378, section 4.1).
    """

    alphas_cumprod: np.ndarray = field(repr=False, compare=False)
    timestep_spacing: str = "leading"
    steps_offset: int = 0
    set_alpha_to_one: bool = True
    sigma_spacing: str | None = None
    sigma_min: float | None = None
    sigma_max: float | None = None
    final_sigmas_type: str = "zero"
    beta_schedule: str = "linear"
    original_inference_steps: int = 50
    timestep_scaling: float = 10.0

    @classmethod
    def from_manifest(cls, fields: Mapping[str, Any]) -> Schedule:
        """The schedule that a bundle's `schedule` section describes.

        Raises UserError for a missing field, an unknown beta schedule, an unknown spacing, and for
        a `sigma_min` or `sigma_max` that is no noise level.
        """
        try:
            spacing = fields["timestep_spacing"]
            betas = _betas(
                fields["beta_schedule"],
                int(fields["num_train_timesteps"]),
                float(fields["beta_start"]),
                float(fields["beta_end"]),
            )
            if (own := fields.get("trained_betas")) is not None:
                betas = np.array(own, np.float32)
            if fields["rescale_zero_terminal_snr"]:
                betas = _rescale_zero_terminal_snr(betas)
            offset, to_one = int(fields["steps_offset"]), bool(fields["set_alpha_to_one"])
        except KeyError as missing:
            raise UserError(f"The noise schedule lacks {missing}; {_REBUILD}.") from None
        if spacing not in SPACINGS:
            raise UserError(f"Unknown timestep spacing {spacing!r}; known are {_words(SPACINGS)}.")
        return cls(
            _alphas_cumprod(betas).astype(np.float64),
            spacing,
            offset,
            to_one,
            *_sigma_fields(fields),
            fields["beta_schedule"],
            int(fields.get("original_inference_steps", 50)),
            float(fields.get("timestep_scaling", 10.0)),
        )


def _sigma_fields(
    fields: Mapping[str, Any],
) -> tuple[str | None, float | None, float | None, str]:
    """The fields about noise levels, which most manifests leave out."""
    spacing = fields.get("sigma_spacing")
    if spacing is not None and spacing not in SIGMA_SPACINGS:
        raise UserError(f"Unknown sigma spacing {spacing!r}; known are {_words(SIGMA_SPACINGS)}.")
    final = fields.get("final_sigmas_type", "zero")
    if final not in FINAL_SIGMAS:
        raise UserError(f"Unknown final_sigmas_type {final!r}; known are {_words(FINAL_SIGMAS)}.")
    least, most = (
        None if (value := fields.get(name)) is None else float(value)
        for name in ("sigma_min", "sigma_max")
    )
    known = [value for value in (least, most) if value is not None]
    if any(not 0 < value < math.inf for value in known) or sorted(set(known)) != known:
        raise UserError(
            "sigma_min must be above 0 and sigma_max above it, both finite, got sigma_min "
            f"{least} and sigma_max {most}."
        )
    return spacing, least, most, final


def space_sigmas(spacing: str, most: float, least: float, count: int) -> np.ndarray:
    """`count` noise levels float64, from `most` down to `least`, spaced as one of SIGMA_SPACINGS.

    A noise level is the ratio of noise to signal (sigma in the variance-exploding frame). "karras"
    spaces evenly in sigma^(1/7) (EDM, arXiv 2206.00364, eq. 5). "exponential" and "lu" space evenly
    in log(sigma), that is in log-SNR (DPM-Solver, arXiv 2206.00927, section 3.4); they differ in
    the timesteps that solvers give the model.
    """
    ramp = np.linspace(0, 1, count)
    if spacing == "karras":
        first, last = most ** (1 / _RHO), least ** (1 / _RHO)
        return (first + ramp * (last - first)) ** _RHO
    limits = np.array([most, least], np.float64)
    if spacing == "lu":
        limits = limits.astype(np.float32)
    first, last = map(float, np.log(limits))
    return np.exp(np.linspace(first, last, count))


def _words(names: tuple[str, ...]) -> str:
    return ", ".join(names)


def _linspace_f32(start: float, end: float, count: int) -> np.ndarray:
    """`count` float32 numbers from start to end, rounded as torch.linspace rounds them.

    torch counts float32 steps from the nearer end and rounds once. The last bits of numpy's
    linspace differ, and 1 - alpha_bar magnifies that to 1e-4 at the first timesteps.
    """
    first, last = np.float32(start), np.float32(end)
    step = np.float64((last - first) / np.float32(max(count - 1, 1)))
    i = np.arange(count)
    numbers = np.where(i < count // 2, first + step * i, last - step * i[::-1])
    return numbers.astype(np.float32)


def _betas(name: str, count: int, start: float, end: float) -> np.ndarray:
    """Noise added at each training step, float32 [count]."""
    if name == "linear":
        return _linspace_f32(start, end, count)
    if name == "scaled_linear":
        return _linspace_f32(start**0.5, end**0.5, count) ** 2
    if name == "squaredcos_cap_v2":  # Nichol and Dhariwal, arXiv 2102.09672, eq. 17
        level = [math.cos((i / count + 0.008) / 1.008 * math.pi / 2) ** 2 for i in range(count + 1)]
        return np.array([min(1 - b / a, 0.999) for a, b in pairwise(level)], np.float32)
    raise UserError(f"Unknown beta schedule {name!r}; known are {_words(BETA_SCHEDULES)}.")


def _alphas_cumprod(betas: np.ndarray) -> np.ndarray:
    """The product of 1 - beta up to each step, float32, accumulated in float64 as by torch."""
    alphas = 1 - betas
    return np.cumprod(alphas, dtype=np.float64).astype(np.float32)


def _rescale_zero_terminal_snr(betas: np.ndarray) -> np.ndarray:
    """Betas whose last timestep is pure noise (arXiv 2305.08891, algorithm 1)."""
    root = np.sqrt(_alphas_cumprod(betas))
    first, last = root[0], root[-1]
    root = (root - last) * (first / (first - last))
    level = root**2
    return np.float32(1) - np.concatenate([level[:1], level[1:] / level[:-1]])
