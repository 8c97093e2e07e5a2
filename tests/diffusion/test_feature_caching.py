"""Which steps of a trajectory reuse features."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from synfer_rt.diffusion.feature_caching import with_cached_features
from synfer_rt.diffusion.schedule import Schedule
from synfer_rt.diffusion.solvers import Trajectory, trajectory
from synfer_rt.errors import UserError

FULL, REUSED = False, True


@pytest.fixture
def seven() -> Trajectory:
    return trajectory("ddim", Schedule(np.linspace(0.999, 0.005, 1000)), 7)


def test_without_caching_no_step_reuses_features(seven: Trajectory) -> None:
    assert seven.reused.tolist() == [FULL] * 7
    assert with_cached_features(seven, 1).reused.tolist() == [FULL] * 7


def test_every_nth_step_computes_them_and_the_first_always_does(seven: Trajectory) -> None:
    three = with_cached_features(seven, 3).reused.tolist()
    assert three == [FULL, REUSED, REUSED, FULL, REUSED, REUSED, FULL]
    assert with_cached_features(seven, 2).reused.tolist() == [FULL, REUSED] * 3 + [FULL]
    assert with_cached_features(seven, 99).reused.tolist() == [FULL] + [REUSED] * 6


def test_only_guided_steps_count(seven: Trajectory) -> None:
    guided = np.array([False, False, True, True, True, False, False])
    found = with_cached_features(replace(seven, guided=guided), 2)
    assert found.reused.tolist() == [FULL, FULL, FULL, REUSED, FULL, FULL, FULL]


def test_nothing_else_of_the_trajectory_changes(seven: Trajectory) -> None:
    found = with_cached_features(seven, 2)
    np.testing.assert_array_equal(found.timesteps, seven.timesteps)
    np.testing.assert_array_equal(found.coefficients, seven.coefficients)
    assert (found.signal, found.noise, found.denoiser) == (seven.signal, seven.noise, "denoiser")


def test_a_students_steps_reuse_nothing(seven: Trajectory) -> None:
    student = replace(seven, denoiser="denoiser.distilled")
    assert not with_cached_features(student, 1).reused.any()
    with pytest.raises(
        UserError, match=r'denoiser\.distilled makes these steps; write `quality="best'
    ):
        with_cached_features(student, 2)


@pytest.mark.parametrize("every", [0, -1, 1.5, True, "2", None])
def test_a_number_below_one_is_refused(seven: Trajectory, every: Any) -> None:
    with pytest.raises(UserError, match=r"`cache_every` must be .*at least 1, got"):
        with_cached_features(seven, every)
