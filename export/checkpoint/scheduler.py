"""scheduler_config.json: the noise schedule that a model was trained on, and how it is sampled.

Every setting that changes images is written into the bundle, refused, or named in a remark that
says what is done instead. Settings that diffusers ignores are ignored: those of other scheduler
classes, and clipping, which its Stable Diffusion pipelines turn off.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import diffusers
import numpy as np

from synfer_rt import ranges
from synfer_rt.diffusion.schedule import (
    BETA_SCHEDULES,
    FINAL_SIGMAS,
    SCALINGS,
    SPACINGS,
    Schedule,
)
from synfer_rt.diffusion.solvers import PREDICTION_TYPES
from synfer_rt.errors import UserError
from synfer_rt.export.files.json_files import read_json
from synfer_rt.export.files.model_folder import quiet
from synfer_rt.export.sentences import first_line

CONFIG = "scheduler_config.json"
DEFAULT_SOLVER = "dpmpp-2m"
"""The solver for models whose scheduler is none of our solvers."""

_DPM = {"algorithm_type": "dpmsolver++", "solver_type": "midpoint", "lower_order_final": True}
_UNIPC = {"solver_order": 2, "solver_type": "bh2", "predict_x0": True, "lower_order_final": True}
_SOLVERS: tuple[tuple[str, dict[str, Any], str], ...] = (
    ("DDIMScheduler", {}, "ddim"),
    ("DDIMParallelScheduler", {}, "ddim"),
    ("EulerDiscreteScheduler", {"interpolation_type": "linear"}, "euler"),
    ("DPMSolverMultistepScheduler", {"solver_order": 2, **_DPM}, "dpmpp-2m"),
    ("DPMSolverMultistepScheduler", {"solver_order": 3, **_DPM}, "dpmpp-3m"),
    (
        "DPMSolverMultistepScheduler",
        {"solver_order": 2, **_DPM, "algorithm_type": "sde-dpmsolver++"},
        "dpmpp-sde",
    ),
    ("UniPCMultistepScheduler", {**_UNIPC, "disable_corrector": [], "solver_p": None}, "unipc"),
    ("EulerAncestralDiscreteScheduler", {}, "euler-ancestral"),
    ("LCMScheduler", {}, "lcm"),
    ("TCDScheduler", {}, "tcd"),
)
"""The schedulers that equal one of our solvers, and the settings with which they do."""
_OTHERS = (
    *("PNDMScheduler", "DDPMScheduler", "DDPMParallelScheduler", "HeunDiscreteScheduler"),
    *("KDPM2DiscreteScheduler", "KDPM2AncestralDiscreteScheduler", "LMSDiscreteScheduler"),
    *("DEISMultistepScheduler", "DPMSolverSinglestepScheduler", "DPMSolverSDEScheduler"),
    "SASolverScheduler",
)
"""Other schedulers for models of the same kind."""
_DEFAULTS_OF = {"DPMSolverSDEScheduler": "KDPM2DiscreteScheduler"}
"""A class that cannot be made without another package, and one with the same defaults."""
_SIGMA_SPACINGS = {
    "use_karras_sigmas": "karras",
    "use_lu_lambdas": "lu",
    "use_exponential_sigmas": "exponential",
}
_NO_DEFAULTS = {"tensor_format", "predict_epsilon", "noise_sampler_seed"}
"""Settings without effect, of earlier versions and of a class that needs another package."""


@dataclass(frozen=True)
class Scheduler:
    """A checkpoint's scheduler: the manifest's `schedule` and prediction type, and its solver.

    `solver` is the key of SOLVERS that samples like the scheduler, else DEFAULT_SOLVER; `remarks`
    are sentences on what is done otherwise than the file says. `changes` are settings that took the
    place of those in the file.
    """

    schedule: dict[str, Any]
    prediction_type: str
    solver: str
    remarks: tuple[str, ...]
    changes: Mapping[str, Any] = field(default_factory=dict[str, Any])


def read_scheduler(
    folder: Path, named: Any = None, changes: Mapping[str, Any] | None = None
) -> Scheduler:
    """The scheduler in `folder`, with its class's own defaults.

    `named` is the class in model_index.json. `changes` are settings that take the place of those in
    the file, also of its class. Raises UserError for files that are not a scheduler, and for a
    model that none of the solvers can sample.
    """
    given = read_json(folder / CONFIG, "fetch the checkpoint again") | dict(changes or {})
    name = str(given.get("_class_name") or named)
    own = _settings(folder, name, given)
    _check(folder, name, own, given)
    schedule = _schedule(folder, own, given)
    solver, otherwise = _solver(name, own)
    remarks = [*otherwise, *_unused(name, own, given)]
    if named not in (None, name) and not changes:
        remarks.append(f"model_index.json names another scheduler, {named}; {name} is used.")
    return Scheduler(
        schedule,
        own["prediction_type"],
        solver,
        tuple(f"{folder / CONFIG}: {remark}" for remark in remarks),
        dict(changes or {}),
    )


def _settings(folder: Path, name: str, given: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of the scheduler class, from the file or with their defaults."""
    known = dict.fromkeys([entry[0] for entry in _SOLVERS] + [*_OTHERS])
    if name not in known:
        raise UserError(
            f"{folder} has the scheduler {name}, which is not supported; give a model that was "
            f"trained on a noise schedule of betas, with one of {', '.join(known)}."
        )
    scheduler = getattr(diffusers, _DEFAULTS_OF.get(name, name))
    try:
        with quiet():
            # With beta sigmas, making the scheduler needs scipy.
            known = {**given, "_class_name": name, "use_beta_sigmas": False}
            config = scheduler.from_config(known).config
    except Exception as error:  # each class raises errors of its own
        raise UserError(
            f"diffusers cannot make the scheduler in {folder} ({first_line(error)}); correct its "
            f"{CONFIG}, or fetch the checkpoint again."
        ) from error
    own = {key: config[key] for key in _parameters(name) if key in config}
    if "use_beta_sigmas" in own:
        own["use_beta_sigmas"] = bool(given.get("use_beta_sigmas"))
    return own


def _parameters(name: str) -> set[str]:
    scheduler = getattr(diffusers, _DEFAULTS_OF.get(name, name))
    return {*inspect.signature(scheduler.__init__).parameters} - {"self"}


def _check(folder: Path, name: str, own: Mapping[str, Any], given: Mapping[str, Any]) -> None:
    """Raise UserError for a model that does not predict noise, and for unsupported settings."""
    flow = next((key for key in ("use_flow_sigmas", "use_dynamic_shifting") if own.get(key)), None)
    problem, remedy = None, "give a model that predicts epsilon or v on a noise schedule of betas"
    if flow:
        problem = f"{flow}, as models of flow matching have"
    elif own["prediction_type"] not in PREDICTION_TYPES or given.get("predict_epsilon") is False:
        kind = own["prediction_type"] if "predict_epsilon" not in given else "sample"
        problem = f"the prediction type {kind!r}; known are {', '.join(PREDICTION_TYPES)}"
    elif own.get("timestep_type") == "continuous" and own["prediction_type"] == "v_prediction":
        problem = "timestep_type 'continuous': the model was trained on noise levels, not timesteps"
    elif str(own.get("variance_type")).startswith("learned"):
        problem = f"variance_type {own['variance_type']!r}, of a model that predicts a variance too"
    elif own.get("thresholding"):
        problem = "thresholding, which is for pixels and which no solver here has"
        remedy = f'write "thresholding": false into {CONFIG}'
    if problem:
        raise UserError(f"{folder} has a {name} with {problem}; {remedy}.")


def _schedule(folder: Path, own: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """The manifest's `schedule`, with rare settings only if the scheduler has them."""
    schedule = {
        "num_train_timesteps": own["num_train_timesteps"],
        "beta_schedule": own["beta_schedule"],
        "beta_start": own["beta_start"],
        "beta_end": own["beta_end"],
        "rescale_zero_terminal_snr": bool(own.get("rescale_betas_zero_snr", False)),
        # DPMSolverSinglestepScheduler, which lacks the setting, has this spacing.
        "timestep_spacing": own.get("timestep_spacing", "linspace"),
        "steps_offset": own.get("steps_offset", 0),
        # A setting of DDIM; other classes keep it in the file for a change to DDIM.
        "set_alpha_to_one": bool(own.get("set_alpha_to_one", given.get("set_alpha_to_one", True))),
    }
    if schedule["timestep_spacing"] == "leading" and "steps_offset" in own:
        schedule["steps_offset"] = 1  # as StableDiffusionPipeline sets it, whatever the file says
    for setting, spacing in _SIGMA_SPACINGS.items():
        if own.get(setting):
            schedule["sigma_spacing"] = spacing
            # diffusers uses them in every class, declared or not, but never with Lu's spacing.
            bounds = {key: given.get(key) for key in ("sigma_min", "sigma_max")}
            if spacing != "lu":
                schedule |= {key: value for key, value in bounds.items() if value is not None}
            break
    final = own.get("final_sigmas_type", "zero")
    if final != "zero":
        schedule["final_sigmas_type"] = final
    schedule |= _distillation(folder, own)
    if (betas := own.get("trained_betas")) is not None:
        schedule["trained_betas"] = np.asarray(betas, np.float32).ravel().tolist()
        if len(schedule["trained_betas"]) != schedule["num_train_timesteps"]:
            raise UserError(
                f"{folder} has {len(schedule['trained_betas'])} trained_betas for "
                f"{schedule['num_train_timesteps']} timesteps; correct its {CONFIG}."
            )
    for value, known, what in (
        (schedule["beta_schedule"], BETA_SCHEDULES, "beta schedule"),
        (schedule["timestep_spacing"], SPACINGS, "timestep spacing"),
        (final, FINAL_SIGMAS, "final_sigmas_type"),
    ):
        if value not in known:
            raise UserError(
                f"{folder} has the {what} {value!r}; known are {', '.join(known)}. Correct its "
                f"{CONFIG}, or give another model."
            )
    left = Schedule.from_manifest(schedule).alphas_cumprod
    if not (left.size and np.all(np.diff(left) < 0) and left[-1] >= 0 and left[0] < 1):
        raise UserError(f"{folder} has betas that are not a noise schedule; fetch it again.")
    return schedule


def _distillation(folder: Path, own: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of LCM and TCD: the timesteps of the distillation, the boundary condition."""
    if "original_inference_steps" not in own:
        return {}
    steps, scaling = own["original_inference_steps"], own["timestep_scaling"]
    most = own["num_train_timesteps"]
    if not ranges.is_whole(steps, 1, most):
        raise UserError(
            f"{folder} has original_inference_steps {steps!r}, not a whole number from 1 to "
            f"{most}; correct its {CONFIG}."
        )
    if not ranges.is_real(scaling, *SCALINGS):
        raise UserError(
            f"{folder} has timestep_scaling {scaling!r}, not a number from {SCALINGS[0]:g} to "
            f"{SCALINGS[1]:g}; correct its {CONFIG}."
        )
    return {"original_inference_steps": steps, "timestep_scaling": scaling}


def _solver(name: str, own: Mapping[str, Any]) -> tuple[str, list[str]]:
    """The solver for the scheduler, and sentences on what the solver does otherwise."""
    remarks = []
    entries = [entry for entry in _SOLVERS if entry[0] == name]
    odd = [
        {key: own[key] for key, value in settings.items() if own.get(key, value) != value}
        for _, settings, _ in entries
    ]
    solver = next((entry[2] for entry, other in zip(entries, odd, strict=True) if not other), None)
    if solver is None:
        words = [f"{key} {value!r}" for key, value in min(odd, key=len, default={}).items()]
        what = f"{name} with {' and '.join(words)}" if words else name
        solver = DEFAULT_SOLVER
        remarks.append(
            f"{what} has no solver here; images are sampled with {solver} on the same noise "
            "schedule, unless synfer.json or `solver` names another."
        )
    lambda_min = own.get("lambda_min_clipped", -math.inf)
    for key, changes, instead in (
        ("use_beta_sigmas", own.get("use_beta_sigmas"), "steps are spaced by timestep_spacing"),
        (
            "clip_sample",
            name == "LCMScheduler" and own.get("clip_sample"),  # its pipeline leaves it on
            "latents are not clipped",
        ),
        ("lambda_min_clipped", lambda_min > -math.inf, "steps begin at the last timestep"),
        (
            "euler_at_final",
            own.get("euler_at_final") and own.get("final_sigmas_type") != "zero",
            "the last of 15 steps and more is of the solver's order",
        ),
    ):
        if changes:
            remarks.append(f"{key} is not supported; {instead} instead.")
    return solver, remarks


def _unused(name: str, own: Mapping[str, Any], given: Mapping[str, Any]) -> list[str]:
    """Sentences on settings in the file that the scheduler class does not have."""
    classes = {entry[0] for entry in _SOLVERS} | {*_OTHERS}
    elsewhere = set().union(*map(_parameters, classes)) | _NO_DEFAULTS
    matters = {"rescale_betas_zero_snr", "timestep_spacing", "use_beta_sigmas", *_SIGMA_SPACINGS}
    matters |= {"final_sigmas_type"}
    remarks = []
    for key, value in given.items():
        if key.startswith("_") or key in own or value in (None, False, "zero"):
            continue
        if key in matters:
            remarks.append(f"{name} has no setting {key}, so {value!r} is not used.")
        elif key not in elsewhere:
            remarks.append(
                f"the setting {key} is not known to diffusers {diffusers.__version__}, so "
                f"{value!r} is not used; with a newer diffusers, build again."
            )
    return remarks
