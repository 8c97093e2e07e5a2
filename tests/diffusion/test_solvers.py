"""Every solver is a matrix that does what its diffusers namesake does, and what its paper says."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from synfer_rt.diffusion.schedule import FINAL_SIGMAS, SPACINGS, Schedule
from synfer_rt.diffusion.solvers import HISTORY_SLOTS, SOLVERS, Trajectory, trajectory
from synfer_rt.diffusion.timesteps import DISTILLED, EULERS
from synfer_rt.errors import UserError
from tests.diffusion.peers import (
    FRESH,
    NOISE,
    PREDICTIONS,
    SCHEDULES,
    SD15,
    model,
    peer,
    relative_error,
    run,
    run_peer,
    schedule_like,
    undefined,
)

STEPS = dict.fromkeys(SCHEDULES, (7,)) | dict.fromkeys(
    ("stable-diffusion-1.5", "cosine-zero-snr"), (1, 2, 5, 20, 50)
)
REQUIRED = ("timesteps", "coefficients", "signal", "noise")


@pytest.mark.parametrize("prediction", PREDICTIONS)
@pytest.mark.parametrize("spacing", SPACINGS)
@pytest.mark.parametrize("name", SCHEDULES)
@pytest.mark.parametrize("solver", SOLVERS)
def test_a_solver_matches_its_diffusers_scheduler(
    solver: str, name: str, spacing: str, prediction: str
) -> None:
    fields = SCHEDULES[name]
    for steps in STEPS[name]:
        scheduler = peer(solver, fields, spacing, prediction, steps)
        if undefined(solver, fields, float(scheduler.timesteps[0]), prediction):
            continue
        schedule = schedule_like(scheduler, fields, spacing)
        way = trajectory(solver, schedule, steps, 1.0, prediction)
        np.testing.assert_array_equal(way.timesteps, scheduler.timesteps.numpy().astype("f4"))
        theirs = run_peer(scheduler)
        tolerance = 1e-5
        if solver in EULERS:
            # diffusers keeps Euler's sample in float32 at sigma times its size, where the last
            # bits of the image are lost; the next test compares with it in float64.
            sigma = float(scheduler.sigmas[0])
            tolerance += 2 * 2**-23 * sigma * float(np.abs(NOISE).max() / np.abs(theirs).max())
        assert relative_error(run(way), theirs) < tolerance, f"{steps} steps"


@pytest.mark.parametrize("prediction", PREDICTIONS)
@pytest.mark.parametrize("spacing", SPACINGS)
@pytest.mark.parametrize("name", SCHEDULES)
@pytest.mark.parametrize("solver", EULERS)
def test_euler_matches_the_variance_exploding_formula_in_float64(
    solver: str, name: str, spacing: str, prediction: str
) -> None:
    fields = SCHEDULES[name]
    for steps in STEPS[name]:
        scheduler = peer(solver, fields, spacing, prediction, steps)
        sigmas = scheduler.sigmas.double().numpy()
        epsilon = prediction == "epsilon"
        x = NOISE.astype(np.float64) * np.sqrt(sigmas[0] ** 2 + (spacing == "leading"))
        for i, timestep in enumerate(scheduler.timesteps.tolist()):
            sigma, following = sigmas[i : i + 2]
            scale = np.sqrt(sigma**2 + 1)
            output = model(x / scale, timestep)
            clean = x - sigma * output if epsilon else x / scale**2 - output * sigma / scale
            down, up = following, 0.0
            if solver == "euler-ancestral":
                down = following**2 / sigma
                up = np.sqrt(following**2 - down**2)
            x = x + (down - sigma) * (x - clean) / sigma + up * FRESH[i]
        schedule = schedule_like(scheduler, fields, spacing)
        ours = run(trajectory(solver, schedule, steps, 1.0, prediction))
        # An epsilon's error is magnified by sigma on the way to the clean image, in any frame.
        magnified = 4 * 2**-23 * sigmas[0] / np.abs(x).max() if epsilon else 0.0
        assert relative_error(ours, x) < 1e-5 + magnified, f"{steps} steps"


@pytest.mark.parametrize("strength", [1.0, 0.9, 0.5, 0.1])
@pytest.mark.parametrize("prediction", PREDICTIONS)
@pytest.mark.parametrize("solver", SOLVERS)
def test_a_model_that_knows_the_image_arrives_at_it(
    solver: str, prediction: str, strength: float
) -> None:
    image = np.random.default_rng(1).standard_normal(NOISE.shape).astype(np.float32)

    def knows(latents: np.ndarray, timestep: float) -> np.ndarray:
        alpha_bar = SD15.alphas_cumprod[int(timestep)]
        signal, noise = np.sqrt(alpha_bar), np.sqrt(1 - alpha_bar)
        epsilon = (latents - signal * image) / noise
        return epsilon if prediction == "epsilon" else signal * epsilon - noise * image

    steps = 5 if solver in DISTILLED else 12
    way = trajectory(solver, replace(SD15, set_alpha_to_one=True), steps, strength, prediction)
    start = (way.signal * image + way.noise * NOISE).astype(np.float32)
    end, left = (image, 2e-4)
    if solver == "tcd":  # it ends at timestep 0, with noise of at most four deviations
        end = image * np.sqrt(SD15.alphas_cumprod[0])
        left = 4 * np.sqrt(1 - SD15.alphas_cumprod[0])
    np.testing.assert_allclose(run(way, knows, start), end, atol=left)


@pytest.mark.parametrize("solver", ["dpmpp-2m", "dpmpp-3m", "unipc"])
def test_higher_orders_come_nearer_to_the_exact_solution(solver: str) -> None:
    """For Gaussian data the probability-flow ODE has a closed form.

    The last step, to zero noise, is of first order in every solver and left out.
    """
    spread = 0.5
    schedule = replace(SD15, timestep_spacing="linspace")

    def level(timestep: float) -> float:
        return float(np.interp(timestep, np.arange(1000), schedule.alphas_cumprod))

    def deviation(timestep: float) -> float:
        return np.sqrt(level(timestep) * spread**2 + 1 - level(timestep))

    def denoiser(latents: np.ndarray, timestep: float) -> np.ndarray:
        return latents * np.sqrt(1 - level(timestep)) / deviation(timestep) ** 2

    def error(name: str) -> float:
        whole = trajectory(name, schedule, 40)
        way = replace(whole, timesteps=whole.timesteps[:-1], coefficients=whole.coefficients[:-1])
        start, end = whole.timesteps[[0, -1]].tolist()
        return relative_error(run(way, denoiser), NOISE * deviation(end) / deviation(start))

    assert error(solver) * 5 < error("euler")


def test_at_full_strength_sampling_starts_from_unit_noise() -> None:
    for solver in SOLVERS:
        way = trajectory(solver, SD15, 10)
        assert (way.signal, way.noise) == (0.0, 1.0)


@pytest.mark.parametrize("spacing", ["linspace", "trailing"])
def test_euler_starts_from_the_noise_of_its_first_timestep(spacing: str) -> None:
    """sigma * eps, seen through 1 / sqrt(sigma^2 + 1) (EDM, arXiv 2206.00364, algorithm 1)."""
    schedule = replace(SD15, timestep_spacing=spacing)
    alpha_bar = schedule.alphas_cumprod[-1]
    sigma = np.sqrt((1 - alpha_bar) / alpha_bar)
    for solver in EULERS:
        assert trajectory(solver, schedule, 10).noise == pytest.approx(
            sigma / np.sqrt(sigma**2 + 1), abs=1e-12
        )
    for solver in SOLVERS.keys() - EULERS:
        assert trajectory(solver, schedule, 10).noise == 1


SPACED = {
    "karras": {"use_karras_sigmas": True},
    "exponential": {"use_exponential_sigmas": True},
    "lu": {"use_lu_lambdas": True},
}
WITH_SIGMAS = [
    *(("euler", sigmas, spacing) for sigmas in ("karras", "exponential") for spacing in SPACINGS),
    *(("unipc", sigmas, "linspace") for sigmas in ("karras", "exponential")),
    *(
        (solver, sigmas, "linspace")
        for solver in ("dpmpp-2m", "dpmpp-3m", "dpmpp-sde")
        for sigmas in SPACED
    ),
]


@pytest.mark.parametrize("final", FINAL_SIGMAS)
@pytest.mark.parametrize("name", ["stable-diffusion-1.5", "cosine", "scaled-linear-zero-snr"])
@pytest.mark.parametrize(("solver", "sigmas", "spacing"), WITH_SIGMAS)
def test_steps_at_noise_levels_are_those_of_diffusers(
    solver: str, sigmas: str, spacing: str, name: str, final: str
) -> None:
    fields = SCHEDULES[name]
    own = {"sigma_spacing": sigmas, "final_sigmas_type": final}
    for steps in (1, 7, 20):
        settings = SPACED[sigmas] | {"final_sigmas_type": final}
        scheduler = peer(solver, fields, spacing, "v_prediction", steps, **settings)
        schedule = schedule_like(scheduler, fields | own, spacing)
        way = trajectory(solver, schedule, steps, 1.0, "v_prediction")
        np.testing.assert_allclose(way.timesteps, scheduler.timesteps.numpy(), atol=1e-3)
        if solver == "dpmpp-3m" and final == "sigma_min" and steps >= 15:
            continue  # the last step has no length: diffusers divides by it, and all is NaN
        scheduler.set_begin_index(0)  # it would begin at the second of equal timesteps
        theirs = run_peer(scheduler)
        sigma = float(scheduler.sigmas[0])
        tolerance = 2e-5 + 2 * 2**-23 * sigma * float(np.abs(NOISE).max() / np.abs(theirs).max())
        if solver == "dpmpp-sde" and final == "sigma_min":
            # The last noise is the square root of a difference that is nearly nothing.
            tolerance += float(scheduler.sigmas[-1]) * 2**-11 * float(np.abs(FRESH).max())
        assert relative_error(run(way), theirs) < tolerance, f"{steps} steps"


@pytest.mark.parametrize("spacing", SPACINGS)
@pytest.mark.parametrize("solver", ["euler", "dpmpp-2m", "dpmpp-3m", "unipc", "dpmpp-sde"])
def test_the_last_noise_may_stay_as_in_diffusers(solver: str, spacing: str) -> None:
    fields = SCHEDULES["stable-diffusion-1.5"] | {"final_sigmas_type": "sigma_min"}
    for steps in (1, 2, 7, 20):
        scheduler = peer(solver, fields, spacing, "epsilon", steps, final_sigmas_type="sigma_min")
        way = trajectory(solver, schedule_like(scheduler, fields, spacing), steps)
        assert relative_error(run(way), run_peer(scheduler)) < 3e-5, f"{steps} steps"


@pytest.mark.parametrize("solver", ["euler", "unipc"])
def test_noise_levels_may_have_bounds_of_their_own(solver: str) -> None:
    bounds = {"sigma_min": 0.1, "sigma_max": 9.0}
    fields = SCHEDULES["stable-diffusion-1.5"] | {"sigma_spacing": "karras"} | bounds
    scheduler = peer(solver, fields, "leading", "epsilon", 10, use_karras_sigmas=True, **bounds)
    way = trajectory(solver, schedule_like(scheduler, fields, "leading"), 10)
    assert relative_error(run(way), run_peer(scheduler)) < 2e-5


@pytest.mark.parametrize("strength", [1.0, 0.4])
@pytest.mark.parametrize("solver", [name for name in SOLVERS if name not in DISTILLED])
def test_noise_levels_are_those_of_the_formulas(solver: str, strength: float) -> None:
    """Karras: EDM, eq. 5, with rho 7; exponential: evenly in log sigma."""
    alpha_bar = SD15.alphas_cumprod
    ratio = np.sqrt((1 - alpha_bar) / alpha_bar)
    most, least, i = ratio[round(strength * 1000) - 1], ratio[0], np.arange(12) / 11
    if solver in EULERS and strength < 1:
        least = ratio[32]  # of the last of 12 timesteps that lie evenly over 400
    wanted = {
        "karras": (most ** (1 / 7) + i * (least ** (1 / 7) - most ** (1 / 7))) ** 7,
        "exponential": most * (least / most) ** i,
    }
    for spacing, sigmas in wanted.items():
        schedule = replace(SD15, timestep_spacing="linspace", sigma_spacing=spacing)
        way = trajectory(solver, schedule, 12, strength)
        # The second row is the clean image, (latents - noise * prediction) / signal.
        np.testing.assert_allclose(-way.coefficients[:, 1, 1], sigmas, rtol=1e-5)


@pytest.mark.parametrize("spacing", SPACINGS)
@pytest.mark.parametrize("solver", SOLVERS)
def test_below_full_strength_all_steps_lie_after_the_start(solver: str, spacing: str) -> None:
    schedule = replace(SD15, timestep_spacing=spacing)
    for steps in (3, 10, 20 if solver in DISTILLED else 35):
        way = trajectory(solver, schedule, steps, 0.4)
        assert len(way.timesteps) == len(way.coefficients) == steps
        assert way.timesteps[0] == 399
        assert np.all(np.diff(way.timesteps) < 0)
    at_start = np.interp(way.timesteps[0], np.arange(1000), schedule.alphas_cumprod)
    assert way.signal == pytest.approx(np.sqrt(at_start), rel=1e-4)
    assert way.signal**2 + way.noise**2 == pytest.approx(1.0)


def test_a_trajectory_is_float32_matrices_of_the_contract() -> None:
    way = trajectory("unipc", SD15, 7, prediction_type="v_prediction")
    assert way.coefficients.shape == (7, HISTORY_SLOTS + 1, HISTORY_SLOTS + 2)
    assert way.coefficients.dtype == way.timesteps.dtype == np.float32
    assert np.isfinite(way.coefficients).all()


def test_epsilon_at_zero_snr_is_refused_where_it_has_no_answer() -> None:
    fields = SCHEDULES["cosine-zero-snr"] | {"timestep_spacing": "trailing"}
    with pytest.raises(UserError, match=r"zero SNR.*another `solver`"):
        trajectory("ddim", Schedule.from_manifest(fields), 10)


@pytest.mark.parametrize(
    ("word", "near"), [("dpmpp2m", "dpmpp-2m"), ("DDIM++", "ddim"), ("unip", "unipc")]
)
def test_an_unknown_solver_is_refused_with_the_nearest(word: str, near: str) -> None:
    with pytest.raises(UserError, match=f"nearest is {near} "):
        trajectory(word, SD15, 10)


@pytest.mark.parametrize("steps", [0, -3, 1001])
def test_steps_outside_the_timesteps_are_refused(steps: int) -> None:
    with pytest.raises(UserError, match="from 1 to 1000"):
        trajectory("ddim", SD15, steps)


def test_steps_that_a_spacing_cannot_hold_are_refused() -> None:
    with pytest.raises(UserError, match="with leading spacing; lower `steps`"):
        trajectory("dpmpp-2m", SD15, 1000)


@pytest.mark.parametrize("strength", [0.0, -0.1, 1.1, float("nan")])
def test_a_strength_outside_its_range_is_refused(strength: float) -> None:
    with pytest.raises(UserError, match="`strength` must be"):
        trajectory("ddim", SD15, 1, strength)


def test_an_unknown_prediction_type_is_refused() -> None:
    with pytest.raises(UserError, match="known are epsilon and v_prediction"):
        trajectory("ddim", SD15, 10, prediction_type="sample")


def test_by_default_a_trajectory_adds_no_noise_and_guides_every_step() -> None:
    way = Trajectory(*(trajectory("ddim", SD15, 5).__dict__[name] for name in REQUIRED))
    np.testing.assert_array_equal(way.noises, np.zeros(5, np.float32))
    np.testing.assert_array_equal(way.guided, np.ones(5, bool))
    assert way.denoiser == "denoiser"
    assert not way.is_stochastic
