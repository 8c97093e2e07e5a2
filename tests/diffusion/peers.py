"""diffusers' schedulers beside our solvers: the same settings, starts, model and fresh noise."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import replace
from typing import Any
from unittest import mock

import diffusers
import numpy as np
import torch

from synfer_rt.diffusion.schedule import Schedule
from synfer_rt.diffusion.solvers import HISTORY_SLOTS, Trajectory
from synfer_rt.diffusion.timesteps import DISTILLED

SCHEDULES: dict[str, dict[str, Any]] = {
    "stable-diffusion-1.5": {
        "beta_schedule": "scaled_linear",
        "steps_offset": 1,
        "set_alpha_to_one": False,
    },
    "linear": {"beta_schedule": "linear", "beta_start": 0.0001, "beta_end": 0.02},
    "cosine": {"beta_schedule": "squaredcos_cap_v2"},
    "cosine-zero-snr": {"beta_schedule": "squaredcos_cap_v2", "rescale_zero_terminal_snr": True},
    "scaled-linear-zero-snr": {
        "beta_schedule": "scaled_linear",
        "rescale_zero_terminal_snr": True,
    },
}
SCHEDULES = {
    name: {
        "num_train_timesteps": 1000,
        "beta_start": 0.00085,
        "beta_end": 0.012,
        "rescale_zero_terminal_snr": False,
        "steps_offset": 0,
        "set_alpha_to_one": True,
    }
    | fields
    for name, fields in SCHEDULES.items()
}
SD15 = Schedule.from_manifest(SCHEDULES["stable-diffusion-1.5"] | {"timestep_spacing": "leading"})
PREDICTIONS = ("epsilon", "v_prediction")
NOISE = np.random.default_rng(0).standard_normal((2, 3, 4, 4)).astype(np.float32)
FRESH = np.random.default_rng(7).standard_normal((50, *NOISE.shape)).astype(np.float32)
"""The fresh noise of each step."""


def model(latents: np.ndarray, timestep: float) -> np.ndarray:
    """A fixed nonlinear function of latents and time that mixes neighbours, as a UNet does."""
    mixed = np.tanh(1.7 * latents + np.sin(timestep / 300))
    return (mixed + 0.3 * np.roll(latents, 1, -1)).astype(latents.dtype)


def run(
    way: Trajectory,
    predict: Callable[[np.ndarray, float], np.ndarray] = model,
    start: np.ndarray | None = None,
) -> np.ndarray:
    """What the denoiser and the sampler do with a trajectory, by default from NOISE."""
    latents = (way.noise * NOISE).astype(np.float32) if start is None else start
    history = np.zeros((HISTORY_SLOTS, *latents.shape), np.float32)
    for i, (timestep, matrix) in enumerate(zip(way.timesteps, way.coefficients, strict=True)):
        prediction = predict(latents, float(timestep))
        rows = np.tensordot(matrix, np.stack([latents, prediction, *history]), 1)
        latents, history = rows[0] + way.noises[i] * FRESH[i], rows[1:]
    return latents


def peer(
    solver: str, fields: dict[str, Any], spacing: str, prediction: str, steps: int, **settings: Any
) -> Any:
    """The diffusers scheduler of the same name and settings."""
    shared = {
        "num_train_timesteps": fields["num_train_timesteps"],
        "beta_schedule": fields["beta_schedule"],
        "beta_start": fields["beta_start"],
        "beta_end": fields["beta_end"],
        "rescale_betas_zero_snr": fields["rescale_zero_terminal_snr"],
        "steps_offset": fields["steps_offset"],
        "timestep_spacing": spacing,
        "prediction_type": prediction,
        **settings,
    }
    scheduler = {
        "ddim": lambda: diffusers.DDIMScheduler(
            **shared, set_alpha_to_one=fields["set_alpha_to_one"], clip_sample=False
        ),
        "euler": lambda: diffusers.EulerDiscreteScheduler(**shared),
        "dpmpp-2m": lambda: diffusers.DPMSolverMultistepScheduler(**shared),
        "dpmpp-3m": lambda: diffusers.DPMSolverMultistepScheduler(**shared, solver_order=3),
        "unipc": lambda: diffusers.UniPCMultistepScheduler(**shared),
        "euler-ancestral": lambda: diffusers.EulerAncestralDiscreteScheduler(**shared),
        "dpmpp-sde": lambda: diffusers.DPMSolverMultistepScheduler(
            **shared, algorithm_type="sde-dpmsolver++"
        ),
        "lcm": lambda: diffusers.LCMScheduler(**shared),
        "tcd": lambda: diffusers.TCDScheduler(**shared),
    }[solver]()
    scheduler.set_timesteps(steps)
    return scheduler


def run_peer(scheduler: Any, start: np.ndarray | None = None, **given: Any) -> np.ndarray:
    """The scheduler's result with FRESH as its random numbers, `given` to each step.

    It starts from NOISE, scaled as a pipeline scales it, if `start` is None.
    """
    latents = torch.from_numpy(NOISE if start is None else start)
    if start is None:
        latents = latents * scheduler.init_noise_sigma
    for i, timestep in enumerate(scheduler.timesteps):
        seen = scheduler.scale_model_input(latents, timestep)
        prediction = torch.from_numpy(model(seen.numpy(), float(timestep)))
        with mock.patch.object(
            sys.modules[type(scheduler).__module__],
            "randn_tensor",
            mock.Mock(return_value=torch.from_numpy(FRESH[i])),
            create=True,
        ):
            step = scheduler.step(prediction, timestep, latents, return_dict=False, **given)
        latents = step[0]
    return latents.numpy()


def schedule_like(scheduler: Any, fields: dict[str, Any], spacing: str) -> Schedule:
    """Our schedule; after the zero-SNR rescaling, which is not bit for bit, with their numbers."""
    schedule = Schedule.from_manifest(fields | {"timestep_spacing": spacing})
    if not fields["rescale_zero_terminal_snr"]:
        return schedule
    numbers = scheduler.alphas_cumprod.double().numpy().copy()
    numbers[-1] = 0.0  # where diffusers puts 2**-24 for all but DDIM; the solver must do that
    return replace(schedule, alphas_cumprod=numbers)


def relative_error(ours: np.ndarray, theirs: np.ndarray) -> float:
    return float(np.abs(ours - theirs).max() / np.abs(theirs).max())


def undefined(solver: str, fields: dict[str, Any], way_start: float, prediction: str) -> bool:
    """Some solvers divide by the signal, which epsilon has none of at zero SNR."""
    at_zero = fields["rescale_zero_terminal_snr"] and way_start == 999
    return solver in ("ddim", *DISTILLED) and at_zero and prediction == "epsilon"
