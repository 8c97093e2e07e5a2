"""Trajectories backwards lead from clean latents to the start that leads to them."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from synfer_rt.bundle import Bundle
from synfer_rt.diffusion.guidance_interval import levels
from synfer_rt.diffusion.inversion import FIXED_POINT, METHODS, fixed_point, predictor_corrector
from synfer_rt.diffusion.solvers import SOLVERS, Trajectory, trajectory
from synfer_rt.errors import UserError


def ways(bundle: Bundle, solver: str, prediction_type: str, steps: int = 12) -> Trajectory:
    return trajectory(solver, bundle.schedule, steps, 0.6, prediction_type)


def run(
    way: Trajectory, start: np.ndarray, predict: Callable[[np.ndarray, float], np.ndarray]
) -> np.ndarray:
    """What the denoiser engine computes along `way`, with `predict` as its UNet."""
    stack = np.zeros((5, *start.shape))
    stack[0] = start
    for timestep, matrix in zip(way.timesteps, way.coefficients.astype(np.float64), strict=True):
        stack[1] = predict(stack[0], timestep)
        rows = np.tensordot(matrix, stack, 1)
        stack[0], stack[2:] = rows[0], rows[1:]
    return stack[0]


def smooth(x: np.ndarray, timestep: float) -> np.ndarray:
    return np.tanh(x[::-1] + timestep / 1000)


@pytest.mark.parametrize("prediction_type", ["epsilon", "v_prediction"])
def test_ddim_leads_back_once_the_rounds_have_converged(
    tiny_bundle: Bundle, prediction_type: str
) -> None:
    way = ways(tiny_bundle, "ddim", prediction_type)
    start = np.random.default_rng(0).standard_normal(50)
    clean = run(way, start, smooth)
    errors = [
        np.abs(run(fixed_point(way, prediction_type, rounds), clean, smooth) - start).max()
        for rounds in (1, 3, 20)
    ]
    assert errors[0] > 3 * errors[1] > 3 * errors[2]
    assert errors[2] < 1e-4


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("prediction_type", ["epsilon", "v_prediction"])
def test_every_solvers_start_is_found_for_a_known_image(
    tiny_bundle: Bundle, solver: str, prediction_type: str, method: str
) -> None:
    way = ways(tiny_bundle, solver, prediction_type)
    clean, noise = np.random.default_rng(1).standard_normal((2, 50))
    a, b = way.coefficients[0, 1, :2].astype(float)
    signal, level = (1 / a, -b / a) if prediction_type == "epsilon" else (a, -b)

    def exact(x: np.ndarray, timestep: float) -> np.ndarray:
        i = int(np.flatnonzero(way.timesteps == timestep)[0])
        a, b = way.coefficients[i, 1, :2].astype(float)
        signal, level = (1 / a, -b / a) if prediction_type == "epsilon" else (a, -b)
        return noise if prediction_type == "epsilon" else signal * noise - level * clean

    found = run(METHODS[method](way, prediction_type), clean, exact)
    # The last step of the other method is a guess, and so is each step if epsilon is fixed.
    atol = 1e-4 if method == FIXED_POINT else 0.1
    np.testing.assert_allclose(found, signal * clean + level * noise, atol=atol)


def test_no_rounds_are_refused(tiny_bundle: Bundle) -> None:
    with pytest.raises(UserError, match="`rounds` must be at least 1, got 0"):
        fixed_point(ways(tiny_bundle, "ddim", "v_prediction"), "v_prediction", 0)


@pytest.mark.parametrize("solver", ["ddim", "dpmpp-2m"])
def test_one_step_from_noise_alone_is_refused(tiny_bundle: Bundle, solver: str) -> None:
    assert tiny_bundle.schedule.alphas_cumprod[-1] == 0
    for steps, strength in ((2, 1.0), (1, 0.9)):
        way = trajectory(solver, tiny_bundle.schedule, steps, strength, "v_prediction")
        assert np.isfinite(fixed_point(way, "v_prediction").coefficients).all()
    with pytest.raises(UserError, match="raise `steps`, or lower `layout_strength`"):
        fixed_point(
            trajectory(solver, tiny_bundle.schedule, 1, 1.0, "v_prediction"), "v_prediction"
        )


MEANS = 0.8 * np.random.default_rng(2).standard_normal((8, 40))
DEVIATION = 0.4


def clean_of_mixture(x: np.ndarray, signal: float, noise: float) -> np.ndarray:
    """The mean of the clean points behind noisy ones [n, 40], of a mixture of Gaussians.

    It is what a network predicts that was trained on such points without any error.
    """
    variance = (signal * DEVIATION) ** 2 + noise**2
    apart = x[:, None] - signal * MEANS
    scores = -(apart**2).sum(2) / (2 * variance)
    shares = np.exp(scores - scores.max(1, keepdims=True))
    shares /= shares.sum(1, keepdims=True)
    means = MEANS + signal * DEVIATION**2 / variance * apart
    return (shares[..., None] * means).sum(1)


@pytest.mark.parametrize("steps", [8, 20])
@pytest.mark.parametrize("solver", ["dpmpp-2m", "dpmpp-3m", "unipc", "euler", "ddim"])
@pytest.mark.parametrize("prediction_type", ["epsilon", "v_prediction"])
def test_an_evaluation_a_step_leads_back_better_than_plain_ddim(
    tiny_bundle: Bundle, solver: str, prediction_type: str, steps: int
) -> None:
    way = trajectory(solver, tiny_bundle.schedule, steps, 0.7, prediction_type)
    pairs = dict(zip(way.timesteps.tolist(), levels(way, prediction_type), strict=True))

    def predict(x: np.ndarray, timestep: float) -> np.ndarray:
        signal, noise = pairs[timestep]
        clean = clean_of_mixture(x, signal, noise)
        return (
            (x - signal * clean) / noise
            if prediction_type == "epsilon"
            else (signal * x - clean) / noise
        )

    draw = np.random.default_rng(3)
    clean = MEANS[np.arange(32) % 8] + DEVIATION * draw.standard_normal((32, 40))
    backwards = predictor_corrector(way, prediction_type), fixed_point(way, prediction_type, 1)
    assert [len(back.timesteps) for back in backwards] == [steps, steps]
    ends = [run(way, run(back, clean, predict), predict) for back in backwards]
    lost, lost_by_ddim = (np.median(np.square(end - clean).mean(1)) for end in ends)
    assert lost < 0.7 * lost_by_ddim


@pytest.mark.parametrize("steps", [1, 2, 5])
def test_there_are_as_many_evaluations_as_steps(tiny_bundle: Bundle, steps: int) -> None:
    """The first step that is gone back is corrected twice, and the last is a guess."""
    way = trajectory("dpmpp-2m", tiny_bundle.schedule, steps, 0.7, "v_prediction")
    times = predictor_corrector(way, "v_prediction").timesteps.tolist()
    own = way.timesteps.tolist()
    assert times == (own if steps == 1 else [own[-1], *reversed(own[1:])])
