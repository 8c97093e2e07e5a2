"""Timesteps: those that are given, and those at which a model was distilled."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import diffusers
import numpy as np
import pytest

from synfer_rt.diffusion.solvers import SOLVERS, Trajectory, trajectory
from synfer_rt.diffusion.timesteps import DISTILLED, EULERS
from synfer_rt.errors import UserError
from tests.diffusion.peers import (
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
)

GIVEN = ([999, 749, 499, 249], [999, 600, 3], [800], [951, 901, 400, 301, 2])
TAKE_TIMESTEPS = ("euler", "dpmpp-2m", "dpmpp-3m", "dpmpp-sde", *DISTILLED)
"""The solvers whose namesakes in diffusers can be given timesteps."""


def tolerance(scheduler: Any, theirs: np.ndarray) -> float:
    """1e-5, and what diffusers loses where it keeps latents at sigma times their size."""
    if not isinstance(scheduler, diffusers.EulerDiscreteScheduler):
        return 1e-5
    sigma = float(scheduler.sigmas[0])
    return 1e-5 + 2 * 2**-23 * sigma * float(np.abs(NOISE).max() / np.abs(theirs).max())


@pytest.mark.parametrize("prediction", PREDICTIONS)
@pytest.mark.parametrize("name", ["stable-diffusion-1.5", "cosine", "scaled-linear-zero-snr"])
@pytest.mark.parametrize("solver", TAKE_TIMESTEPS)
def test_given_timesteps_make_the_latents_of_diffusers(
    solver: str, name: str, prediction: str
) -> None:
    fields = SCHEDULES[name]
    for given in GIVEN:
        zero_snr = fields["rescale_zero_terminal_snr"] and given[0] == 999
        if zero_snr and prediction == "epsilon" and solver in DISTILLED:
            continue  # undefined
        scheduler = peer(solver, fields, "leading", prediction, 4)
        scheduler.set_timesteps(timesteps=given)
        schedule = schedule_like(scheduler, fields, "leading")
        way = trajectory(solver, schedule, None, 1.0, prediction, given)
        assert way.timesteps.tolist() == given
        theirs = run_peer(scheduler)
        assert relative_error(run(way), theirs) < tolerance(scheduler, theirs), given


def same(one: Trajectory, other: Trajectory) -> bool:
    arrays = ("timesteps", "coefficients", "noises")
    return one == other and all(
        np.array_equal(getattr(one, name), getattr(other, name)) for name in arrays
    )


@pytest.mark.parametrize("strength", [1.0, 0.5])
@pytest.mark.parametrize("solver", SOLVERS)
def test_a_solvers_own_timesteps_may_be_given(solver: str, strength: float) -> None:
    schedule = replace(SD15, timestep_spacing="trailing")
    own = trajectory(solver, schedule, 5, strength)
    times = [int(t) for t in own.timesteps]
    for steps in (None, 5):
        assert same(trajectory(solver, schedule, steps, strength, timesteps=times), own)
    array: Any = np.array(times)
    assert same(trajectory(solver, schedule, 5, strength, timesteps=array), own)


@pytest.mark.parametrize("solver", [name for name in SOLVERS if name not in DISTILLED])
def test_given_timesteps_replace_a_spacing_by_noise_level(solver: str) -> None:
    karras = replace(SD15, sigma_spacing="karras")
    given = [900, 500, 100]
    assert same(
        trajectory(solver, karras, None, timesteps=given),
        trajectory(solver, SD15, None, timesteps=given),
    )


@pytest.mark.parametrize("solver", SOLVERS)
def test_the_first_given_timestep_decides_the_noise_of_the_start(solver: str) -> None:
    way = trajectory(solver, SD15, None, 0.5, timesteps=[399, 199])
    assert way.signal == pytest.approx(np.sqrt(SD15.alphas_cumprod[399]), rel=1e-6)
    assert way.signal**2 + way.noise**2 == pytest.approx(1)
    whole = trajectory(solver, SD15, None, 1.0, timesteps=[399, 199])
    assert (whole.signal, whole.noise) == (0, 1)
    assert np.array_equal(whole.coefficients, way.coefficients)


@pytest.mark.parametrize(
    ("timesteps", "words"),
    [
        ([], r"`timesteps` must be whole numbers, such as 999, 749, 499, 249, got \[\]"),
        (999, "`timesteps` must be whole numbers, .* got 999"),
        ("999,749", "`timesteps` must be whole numbers, .* got '999,749'"),
        ([999.5, 3], "`timesteps` must be whole numbers"),
        ([True], "`timesteps` must be whole numbers"),
        ([5, -1], "`timesteps` must be whole numbers"),
        ([249, 499], "`timesteps` must decrease, such as 999, 749, 499, 249, got 249, 499"),
        ([499, 499], "`timesteps` must decrease"),
        ([1000, 1], "`timesteps` must lie from 0 to 999, the timesteps of this model, got 1000, 1"),
    ],
)
def test_timesteps_that_are_none_are_refused(timesteps: Any, words: str) -> None:
    with pytest.raises(UserError, match=words):
        trajectory("ddim", SD15, None, timesteps=timesteps)


def test_timesteps_above_the_part_that_is_run_are_refused() -> None:
    with pytest.raises(UserError, match=r"below 500, .* at strength 0\.5, got 500, 3; lower them"):
        trajectory("ddim", SD15, None, 0.5, timesteps=[500, 3])


@pytest.mark.parametrize("steps", [1, 3, 2.0])
def test_steps_of_another_number_than_the_timesteps_are_refused(steps: Any) -> None:
    with pytest.raises(UserError, match="but there are 2 `timesteps`; leave out `steps`"):
        trajectory("ddim", SD15, steps, timesteps=[500, 3])


def test_one_of_steps_and_timesteps_is_needed() -> None:
    with pytest.raises(UserError, match="`steps` must be a whole number from 1 to 1000"):
        trajectory("ddim", SD15, None)


@pytest.mark.parametrize("strength", [1.0, 0.7, 0.58, 0.29, 0.1])
@pytest.mark.parametrize("original", [50, 100, 32, 1000])
@pytest.mark.parametrize("solver", DISTILLED)
def test_distilled_models_visit_timesteps_of_their_distillation(
    solver: str, original: int, strength: float
) -> None:
    fields = SCHEDULES["stable-diffusion-1.5"]
    schedule = replace(SD15, original_inference_steps=original)
    for steps in (1, 2, 3):
        scheduler = peer(solver, fields, "leading", "epsilon", 1, original_inference_steps=original)
        scheduler.set_timesteps(steps, strength=strength)
        way = trajectory(solver, schedule, steps, strength)
        assert way.timesteps.tolist() == scheduler.timesteps.tolist()
        start = (way.signal + way.noise * NOISE).astype(np.float32)
        assert relative_error(run(way, start=start), run_peer(scheduler, start)) < 1e-5


@pytest.mark.parametrize("solver", DISTILLED)
def test_more_steps_than_a_distillation_has_are_refused(solver: str) -> None:
    with pytest.raises(UserError, match=r"into the 50 timesteps .* at strength 1; lower `steps`"):
        trajectory(solver, SD15, 51)
    with pytest.raises(UserError, match=r"into the 0 timesteps .* at strength 0\.01; lower"):
        trajectory(solver, SD15, 1, 0.01)


@pytest.mark.parametrize("scaling", [10.0, 1.0, 0.001])
def test_a_consistency_model_keeps_its_input_where_nothing_is_to_be_removed(
    scaling: float,
) -> None:
    fields = SCHEDULES["stable-diffusion-1.5"]
    schedule = replace(SD15, timestep_scaling=scaling)
    for given in ([999, 499, 1], [400, 0]):
        scheduler = peer("lcm", fields, "leading", "epsilon", 1, timestep_scaling=scaling)
        scheduler.set_timesteps(timesteps=given)
        way = trajectory("lcm", schedule, None, timesteps=given)
        assert relative_error(run(way), run_peer(scheduler)) < 1e-5
    np.testing.assert_array_equal(way.coefficients[-1, 0], [1, 0, 0, 0, 0])


@pytest.mark.parametrize("prediction", PREDICTIONS)
@pytest.mark.parametrize("eta", [0.0, 0.1, 0.3, 0.7, 1.0])
def test_eta_is_the_share_of_fresh_noise_of_tcd(eta: float, prediction: str) -> None:
    fields = SCHEDULES["cosine"]
    for steps in (1, 4, 7, 50):
        scheduler = peer("tcd", fields, "leading", prediction, steps)
        schedule = schedule_like(scheduler, fields, "leading")
        way = trajectory("tcd", schedule, steps, 1.0, prediction, eta=eta)
        assert way.is_stochastic == (eta > 0 and steps > 1)
        assert relative_error(run(way), run_peer(scheduler, eta=eta)) < 1e-5, f"{steps} steps"


@pytest.mark.parametrize("eta", [-0.1, 1.1, float("nan"), "0.3", True])
def test_an_eta_outside_its_range_is_refused(eta: Any) -> None:
    with pytest.raises(UserError, match="`eta` must be"):
        trajectory("tcd", SD15, 4, eta=eta)


def test_an_eta_of_another_solver_is_refused() -> None:
    with pytest.raises(UserError, match="`eta` is a setting of the solver tcd, not of lcm; leave"):
        trajectory("lcm", SD15, 4, eta=0.3)


@pytest.mark.parametrize("strength", [1.0, 0.6])
@pytest.mark.parametrize("solver", ["euler-ancestral", "dpmpp-sde", *DISTILLED])
def test_fresh_noise_keeps_each_level_of_noise(solver: str, strength: float) -> None:
    """A model that knows the image leaves the noise of the next timestep around it, of variance
    1 - alpha_bar, of which a part is fresh (arXiv 2010.02502, section 3.1)."""
    way = trajectory(solver, SD15, 5, strength)
    level = np.interp(way.timesteps, np.arange(1000), SD15.alphas_cumprod)
    for i, following in enumerate(level[1:]):
        signal, noise = np.sqrt(level[i]), np.sqrt(1 - level[i])
        # The step of an image x0 = 1 and of unit noise eps = 1, apart, since steps are linear.
        row = way.coefficients[i, 0].astype(np.float64)
        kept_image = row[0] * signal + row[2:].sum()
        kept_noise = row[0] * noise + row[1]
        assert kept_image == pytest.approx(np.sqrt(following), abs=2e-5)
        variance = kept_noise**2 + float(way.noises[i]) ** 2
        assert variance == pytest.approx(1 - following, abs=2e-5)


@pytest.mark.parametrize("steps", [3, 12])
def test_part_of_the_schedule_is_denoised_as_by_diffusers(steps: int) -> None:
    fields = SCHEDULES["stable-diffusion-1.5"]
    way = trajectory("dpmpp-sde", SD15, steps, 0.6)
    scheduler = peer("dpmpp-sde", fields, "leading", "epsilon", steps)
    scheduler.set_timesteps(timesteps=[int(t) for t in way.timesteps])
    start = (way.signal + way.noise * NOISE).astype(np.float32)
    assert relative_error(run(way, model, start), run_peer(scheduler, start)) < 1e-5


def test_only_euler_visits_fractional_timesteps() -> None:
    schedule = replace(SD15, timestep_spacing="linspace")
    for solver in SOLVERS:
        times = trajectory(solver, schedule, 7).timesteps
        assert np.any(times % 1 != 0) == (solver in EULERS)
