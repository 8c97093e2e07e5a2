"""Guidance in an interval of noise levels."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from synfer_rt.diffusion.guidance_interval import (
    GuidanceInterval,
    guidance_interval,
    guided_within,
    noise_levels,
)
from synfer_rt.diffusion.schedule import Schedule
from synfer_rt.diffusion.solvers import PREDICTION_TYPES, SOLVERS, trajectory
from synfer_rt.errors import UserError

SCHEDULE = {
    "num_train_timesteps": 1000,
    "beta_schedule": "scaled_linear",
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "rescale_zero_terminal_snr": False,
    "timestep_spacing": "trailing",
    "steps_offset": 0,
    "set_alpha_to_one": True,
}
PLAIN = Schedule.from_manifest(SCHEDULE)
ZERO_SNR = Schedule.from_manifest(SCHEDULE | {"rescale_zero_terminal_snr": True})


@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("prediction_type", PREDICTION_TYPES)
@pytest.mark.parametrize("strength", [0.7, 1.0])
def test_a_steps_level_is_that_of_its_timestep(
    solver: str, prediction_type: str, strength: float
) -> None:
    way = trajectory(solver, PLAIN, 6, strength, prediction_type)
    alpha_bar = PLAIN.alphas_cumprod
    ratio = np.sqrt((1 - alpha_bar) / alpha_bar)
    wanted = np.interp(way.timesteps, np.arange(1000), ratio)
    np.testing.assert_allclose(noise_levels(way, prediction_type), wanted, rtol=1e-4)


def test_pure_noise_has_an_infinite_level() -> None:
    way = trajectory("ddim", ZERO_SNR, 4, prediction_type="v_prediction")
    assert noise_levels(way, "v_prediction")[0] == math.inf
    open_end = guided_within(way, GuidanceInterval(1.0, math.inf), "v_prediction")
    assert open_end.guided[0] and not open_end.guided[-1]
    assert not guided_within(way, GuidanceInterval(0.0, 1e9), "v_prediction").guided[0]


def test_the_lower_limit_is_outside_and_the_upper_inside() -> None:
    way = trajectory("ddim", PLAIN, 5)
    sigmas = noise_levels(way, "epsilon")
    found = guided_within(way, GuidanceInterval(sigmas[3], sigmas[1]), "epsilon")
    assert found.guided.tolist() == [False, True, True, False, False]
    assert way.guided.all()


def test_an_interval_without_a_step_is_refused_with_the_levels_there_are() -> None:
    way = trajectory("ddim", PLAIN, 2)
    high, low = noise_levels(way, "epsilon")
    with pytest.raises(UserError, match=rf"20:30 holds none .* {high:.3g}, {low:.3g}; widen"):
        guided_within(way, GuidanceInterval(20, 30), "epsilon")


@pytest.mark.parametrize(
    ("value", "limits"),
    [((0.3, 5), (0.3, 5.0)), ([0, 1], (0.0, 1.0)), ((1, math.inf), (1.0, math.inf))],
)
def test_two_rising_levels_are_an_interval(value: Any, limits: tuple[float, float]) -> None:
    assert guidance_interval(value) == GuidanceInterval(*limits)


@pytest.mark.parametrize("value", [(5, 0.3), (1, 1), (-1, 2), (math.nan, 1), (0, math.nan)])
def test_levels_that_do_not_rise_from_0_are_refused(value: Any) -> None:
    with pytest.raises(UserError, match="from a noise level of 0 or more to a higher one"):
        guidance_interval(value)


@pytest.mark.parametrize("value", [5, "0.3:5", (1,), (1, 2, 3), ("a", "b"), (True, 2)])
def test_anything_but_two_levels_is_refused(value: Any) -> None:
    with pytest.raises(UserError, match=r"two noise levels, such as \(0.3, 5\)"):
        guidance_interval(value)


def test_an_interval_reads_as_it_is_written() -> None:
    assert str(GuidanceInterval(0.3, 5)) == "0.3:5"
    assert str(GuidanceInterval(0.3, math.inf)) == "0.3:"


def test_json_has_no_infinity() -> None:
    closed, open_end = GuidanceInterval(0.3, 5.0), GuidanceInterval(0.3, math.inf)
    assert closed.settings == [0.3, 5.0] and open_end.settings == [0.3, None]
    assert closed.recorded == {"low": 0.3, "high": 5.0}
    assert open_end.recorded == {"low": 0.3, "high": 0.0}
