"""What a checkpoint's scheduler says is done, refused or named; nothing is passed over."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("diffusers", reason="the build side needs synfer-rt[export]")
import diffusers

from synfer_rt.diffusion.schedule import Schedule
from synfer_rt.diffusion.solvers import trajectory
from synfer_rt.errors import UserError
from synfer_rt.export.checkpoint.reading import read_checkpoint
from synfer_rt.export.checkpoint.scheduler import Scheduler, read_scheduler
from tests.diffusion.peers import relative_error, run, run_peer
from tests.export.tiny_checkpoint import change

STABLE_DIFFUSION = {
    "beta_schedule": "scaled_linear",
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "num_train_timesteps": 1000,
    "steps_offset": 1,
}
DDIM, EULER = "DDIMScheduler", "EulerDiscreteScheduler"
DPM, UNIPC = "DPMSolverMultistepScheduler", "UniPCMultistepScheduler"
LCM, TCD, ANCESTRAL = "LCMScheduler", "TCDScheduler", "EulerAncestralDiscreteScheduler"
SDE = {"algorithm_type": "sde-dpmsolver++"}
BETAS = np.linspace(0.001, 0.02, 1000).tolist()


def read(folder: Path, name: str, **fields: Any) -> Scheduler:
    config = STABLE_DIFFUSION | fields | {"_class_name": name, "_diffusers_version": "0.42.1"}
    (folder / "scheduler_config.json").write_text(json.dumps(config))
    return read_scheduler(folder)


HONOURED: list[tuple[str, str, dict[str, Any]]] = [
    (DDIM, "ddim", {"set_alpha_to_one": False, "timestep_spacing": "trailing"}),
    (DDIM, "ddim", {"trained_betas": BETAS}),
    (DDIM, "ddim", {"prediction_type": "v_prediction", "rescale_betas_zero_snr": True}),
    (EULER, "euler", {"timestep_spacing": "trailing"}),
    (EULER, "euler", {"timestep_spacing": "linspace", "use_karras_sigmas": True}),
    (EULER, "euler", {"timestep_spacing": "leading", "use_exponential_sigmas": True}),
    (EULER, "euler", {"use_karras_sigmas": True, "sigma_min": 0.05, "sigma_max": 12.0}),
    (EULER, "euler", {"final_sigmas_type": "sigma_min"}),
    (DPM, "dpmpp-2m", {"use_karras_sigmas": True}),
    (DPM, "dpmpp-2m", {"use_lu_lambdas": True, "timestep_spacing": "leading"}),
    (DPM, "dpmpp-2m", {"use_karras_sigmas": True, "final_sigmas_type": "sigma_min"}),
    (DPM, "dpmpp-2m", {"beta_schedule": "squaredcos_cap_v2", "use_karras_sigmas": True}),
    (DPM, "dpmpp-2m", {"use_karras_sigmas": True, "sigma_min": 0.05, "sigma_max": 12.0}),
    (DPM, "dpmpp-3m", {"solver_order": 3, "use_exponential_sigmas": True, "sigma_max": 12.0}),
    (DPM, "dpmpp-2m", {"use_lu_lambdas": True, "sigma_min": 0.05, "sigma_max": 12.0}),
    (DPM, "dpmpp-3m", {"solver_order": 3, "use_exponential_sigmas": True}),
    (UNIPC, "unipc", {"use_karras_sigmas": True, "sigma_min": 0.05, "sigma_max": 12.0}),
    (UNIPC, "unipc", {"final_sigmas_type": "sigma_min", "trained_betas": BETAS}),
    (ANCESTRAL, "euler-ancestral", {"timestep_spacing": "trailing"}),
    (ANCESTRAL, "euler-ancestral", {"timestep_spacing": "leading", "trained_betas": BETAS}),
    (DPM, "dpmpp-sde", SDE),
    (DPM, "dpmpp-sde", SDE | {"use_karras_sigmas": True, "prediction_type": "v_prediction"}),
    (LCM, "lcm", {}),
    (LCM, "lcm", {"original_inference_steps": 100, "timestep_scaling": 0.001}),
    (LCM, "lcm", {"prediction_type": "v_prediction", "rescale_betas_zero_snr": True}),
    (TCD, "tcd", {"original_inference_steps": 32, "timestep_spacing": "trailing"}),
    (TCD, "tcd", {"trained_betas": BETAS}),
]


@pytest.mark.parametrize(("name", "solver", "fields"), HONOURED)
def test_what_is_honoured_makes_the_latents_of_diffusers(
    tmp_path: Path, name: str, solver: str, fields: dict[str, Any]
) -> None:
    found = read(tmp_path, name, clip_sample=False, **fields)
    assert (found.solver, found.remarks) == (solver, ())
    schedule = Schedule.from_manifest(found.schedule)
    for steps in (6, 20):
        scheduler = getattr(diffusers, name).from_pretrained(tmp_path)
        scheduler.set_timesteps(steps)
        if name != DDIM:
            scheduler.set_begin_index(0)  # it would begin at the second of equal timesteps
        way = trajectory(found.solver, schedule, steps, 1.0, found.prediction_type)
        assert relative_error(run(way), run_peer(scheduler)) < 5e-5, f"{steps} steps"


def test_without_settings_of_its_own_a_class_has_its_defaults(tmp_path: Path) -> None:
    found = read(tmp_path, "PNDMScheduler", set_alpha_to_one=False, skip_prk_steps=True)
    assert found.schedule == {
        "num_train_timesteps": 1000,
        "beta_schedule": "scaled_linear",
        "beta_start": 0.00085,
        "beta_end": 0.012,
        "rescale_zero_terminal_snr": False,
        "timestep_spacing": "leading",
        "steps_offset": 1,
        "set_alpha_to_one": False,
    }
    assert found.prediction_type == "epsilon"


def test_a_leading_schedule_begins_at_1_as_in_the_pipeline_of_diffusers(sd: Path) -> None:
    change(sd / "scheduler" / "scheduler_config.json", steps_offset=0)
    pipeline: Any = diffusers.StableDiffusionPipeline.from_pretrained(
        sd, safety_checker=None, feature_extractor=None
    )
    found = read_scheduler(sd / "scheduler").schedule["steps_offset"]
    assert found == pipeline.scheduler.config["steps_offset"] == 1


def test_the_singlestep_solver_spaces_its_steps_linearly(tmp_path: Path) -> None:
    for fields in ({}, {"timestep_spacing": "leading"}):
        found = read(tmp_path, "DPMSolverSinglestepScheduler", **fields)
        scheduler: Any = diffusers.DPMSolverSinglestepScheduler.from_pretrained(tmp_path)
        scheduler.set_timesteps(10)
        way = trajectory("dpmpp-2m", Schedule.from_manifest(found.schedule), 10)
        assert way.timesteps.tolist() == scheduler.timesteps.tolist()
    assert "no setting timestep_spacing, so 'leading' is not used" in found.remarks[1]


NAMED: list[tuple[str, dict[str, Any], str]] = [
    *(
        (name, {}, f"{name} has no solver here; .* sampled with dpmpp-2m on the same noise")
        for name in (
            *("PNDMScheduler", "DDPMScheduler", "LMSDiscreteScheduler"),
            *("HeunDiscreteScheduler", "KDPM2DiscreteScheduler"),
            *("KDPM2AncestralDiscreteScheduler", "DEISMultistepScheduler", "SASolverScheduler"),
            *("DPMSolverSinglestepScheduler", "DPMSolverSDEScheduler"),
        )
    ),
    (DPM, SDE | {"solver_order": 1}, "with solver_order 1 has no"),
    (DPM, SDE | {"solver_type": "heun"}, "with solver_type 'heun' has no"),
    (LCM, {"clip_sample": True}, "clip_sample is not supported; latents are not clipped"),
    (ANCESTRAL, {"use_karras_sigmas": True}, "no setting use_karras_sigmas, so True is not used"),
    (
        DPM,
        {"algorithm_type": "dpmsolver", "final_sigmas_type": "sigma_min"},
        "with algorithm_type 'dpmsolver' has no",
    ),
    (DPM, {"solver_type": "heun"}, "with solver_type 'heun' has no"),
    (DPM, {"solver_order": 1}, "with solver_order 1 has no"),
    (DPM, {"lower_order_final": False}, "with lower_order_final False has no"),
    (DPM, {"euler_at_final": True, "final_sigmas_type": "sigma_min"}, "euler_at_final is not"),
    (DPM, {"lambda_min_clipped": -5.1}, "lambda_min_clipped is not .* begin at the last timestep"),
    (
        DPM,
        {"use_beta_sigmas": True},
        "use_beta_sigmas is not supported; steps are spaced by timestep_spacing",
    ),
    (UNIPC, {"solver_type": "bh1"}, "with solver_type 'bh1' has no"),
    (UNIPC, {"disable_corrector": [0]}, r"with disable_corrector \[0\] has no"),
    (EULER, {"interpolation_type": "log_linear"}, "with interpolation_type 'log_linear' has no"),
    ("PNDMScheduler", {"rescale_betas_zero_snr": True}, "no setting rescale_betas_zero_snr"),
    (DDIM, {"use_karras_sigmas": True}, "no setting use_karras_sigmas, so True is not used"),
    (DDIM, {"use_quantum_sigmas": True}, "use_quantum_sigmas is not known to diffusers"),
]


@pytest.mark.parametrize(("name", "fields", "words"), NAMED)
def test_what_is_done_otherwise_is_named(
    tmp_path: Path, name: str, fields: dict[str, Any], words: str
) -> None:
    found = read(tmp_path, name, **fields)
    assert found.solver in ("dpmpp-2m", "euler", "ddim", "lcm", "euler-ancestral")
    assert re.search(words, "\n".join(found.remarks))


def test_settings_that_change_nothing_are_not_named(tmp_path: Path) -> None:
    settings = {
        **{"skip_prk_steps": True, "clip_sample": True, "clip_sample_range": 1.0},
        **{"sample_max_value": 1.0, "thresholding": False, "dynamic_thresholding_ratio": 0.995},
        **{"use_karras_sigmas": False, "final_sigmas_type": "zero", "trained_betas": None},
        **{"tensor_format": "pt", "predict_epsilon": True, "set_alpha_to_one": False},
    }
    assert read(tmp_path, DDIM, **settings).remarks == ()
    assert read(tmp_path, DPM, **settings, euler_at_final=True).remarks == ()


REFUSED: list[tuple[str, dict[str, Any], str]] = [
    (LCM, {"original_inference_steps": 1001}, "steps 1001, not a whole number from 1 to 1000"),
    (LCM, {"original_inference_steps": 0}, "original_inference_steps 0, not a whole number"),
    (TCD, {"original_inference_steps": None}, "original_inference_steps None, not a whole"),
    (LCM, {"timestep_scaling": 0}, "timestep_scaling 0, not a number from 1e-06 to 1e"),
    (LCM, {"thresholding": True}, 'write "thresholding": false'),
    (TCD, {"prediction_type": "sample"}, "the prediction type 'sample'"),
    (DPM, {"use_flow_sigmas": True}, "use_flow_sigmas, as models of flow matching have; give"),
    (UNIPC, {"use_flow_sigmas": True, "flow_shift": 3.0}, "flow matching"),
    (UNIPC, {"prediction_type": "flow_prediction"}, "type 'flow_prediction'; known are epsilon"),
    (UNIPC, {"use_dynamic_shifting": True}, "use_dynamic_shifting, as"),
    (DDIM, {"prediction_type": "sample"}, "the prediction type 'sample'; known are epsilon"),
    (DDIM, {"predict_epsilon": False}, "the prediction type 'sample'"),
    (DDIM, {"thresholding": True}, 'write "thresholding": false into scheduler_config.json'),
    (DPM, {"thresholding": True}, "thresholding, which is for pixels"),
    (DPM, {"variance_type": "learned_range"}, "predicts a variance too"),
    (EULER, {"timestep_type": "continuous", "prediction_type": "v_prediction"}, "noise levels"),
    (DDIM, {"trained_betas": [0.1, 0.2]}, "2 trained_betas for 1000 timesteps"),
    ("DDPMScheduler", {"beta_schedule": "sigmoid"}, "the beta schedule 'sigmoid'; known are"),
    (EULER, {"final_sigmas_type": "one"}, "final_sigmas_type 'one'; known are zero, sigma_min"),
    (DDIM, {"timestep_spacing": "even"}, "the timestep spacing 'even'; known are"),
    (DDIM, {"beta_end": 2}, "betas that are not a noise schedule"),
    (DDIM, {"beta_schedule": "cosine"}, "diffusers cannot make the scheduler"),
    (DDIM, {"beta_start": None}, "diffusers cannot make the scheduler"),
    (DDIM, {"num_train_timesteps": "1000"}, "diffusers cannot make the scheduler"),
    (DDIM, {"num_train_timesteps": 0}, "betas that are not a noise schedule"),
    *(
        (name, {}, f"the scheduler {name}, which is not supported; give")
        for name in (
            *("FlowMatchEulerDiscreteScheduler", "EDMEulerScheduler", "UnCLIPScheduler"),
            *("IPNDMScheduler", "CogVideoXDDIMScheduler", "DDIMInverseScheduler"),
            *("KarrasVeScheduler", "StableDiffusionPipeline", "utils", "None"),
        )
    ),
]


@pytest.mark.parametrize(("name", "fields", "words"), REFUSED)
def test_what_would_make_other_images_is_refused(
    tmp_path: Path, name: str, fields: dict[str, Any], words: str
) -> None:
    with pytest.raises(UserError, match=words):
        read(tmp_path, name, **fields)


def test_the_default_solver_is_the_schedulers_own_unless_another_is_named(sd: Path) -> None:
    path = sd / "scheduler" / "scheduler_config.json"
    checkpoint = read_checkpoint(sd)
    assert checkpoint.settings.defaults["solver"] == "dpmpp-2m"
    assert len(checkpoint.remarks) == 1 and "PNDMScheduler has no solver" in checkpoint.remarks[0]
    change(path, _class_name=UNIPC)
    checkpoint = read_checkpoint(sd)
    assert checkpoint.settings.defaults["solver"] == "unipc"
    assert "names another scheduler, PNDMScheduler; UniPC" in "".join(checkpoint.remarks)
    change(path, _class_name=None)
    assert read_checkpoint(sd).settings.defaults["solver"] == "dpmpp-2m"
    change(path, _class_name=UNIPC)
    change(sd / "model_index.json", scheduler=["diffusers", UNIPC])
    assert read_checkpoint(sd).remarks == ()
    (sd / "synfer.json").write_text('{"defaults": {"solver": "ddim"}}')
    assert read_checkpoint(sd).settings.defaults["solver"] == "ddim"
