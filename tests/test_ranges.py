"""Numbers of callers and files: NumPy's count, while booleans, texts and NaN do not."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from synfer_rt import ranges
from synfer_rt.bundle import Bundle
from synfer_rt.diffusion.solvers import trajectory
from synfer_rt.errors import UserError

NO_NUMBERS = [
    None,
    True,
    False,
    np.bool_(True),
    "1",
    b"1",
    [1],
    {1},
    1j,
    np.array([1, 2]),
    object(),
]


@pytest.mark.parametrize("value", [0, 7, np.int64(7), np.uint8(3), 2**63 - 1])
def test_whole_numbers_become_ints(value: Any) -> None:
    found = ranges.whole("seed", value)
    assert found == value and type(found) is int


@pytest.mark.parametrize("value", [*NO_NUMBERS, 1.0, np.float64(2), float("nan"), float("inf")])
def test_what_is_no_whole_number_is_refused(value: Any) -> None:
    assert not ranges.is_whole(value)
    wanted = r"^`seed` must be a whole number from 0 to 2\^63 - 1, got .+\.$"
    with pytest.raises(UserError, match=wanted):
        ranges.whole("seed", value)
    with pytest.raises(UserError, match=r"^`batch` must be a whole number of at least 1, got"):
        ranges.whole("batch", value, 1, None)


@pytest.mark.parametrize("value", [-1, np.int8(-3), 2**63])
def test_whole_numbers_outside_are_refused(value: Any) -> None:
    wanted = rf"^`seed` must be from 0 to 2\^63 - 1, got {int(value)}\.$"
    with pytest.raises(UserError, match=wanted):
        ranges.whole("seed", value)


@pytest.mark.parametrize("value", [0, -7])
def test_whole_numbers_without_an_upper_limit_have_a_lower_one(value: int) -> None:
    assert ranges.whole("batch", 10**30, 1, None) == 10**30
    with pytest.raises(UserError, match=rf"^`batch` must be at least 1, got {value}\.$"):
        ranges.whole("batch", value, 1, None)


@pytest.mark.parametrize("value", [1, 0.5, -1000, np.float32(0.5), np.int8(-2)])
def test_numbers_become_floats(value: Any) -> None:
    found = ranges.real("au_scale", value)
    assert found == value and type(found) is float


@pytest.mark.parametrize("value", NO_NUMBERS)
def test_what_is_no_number_is_refused(value: Any) -> None:
    assert not ranges.is_number(value) and not ranges.is_real(value, -9, 9)
    with pytest.raises(UserError, match=r"^`au_scale` must be a number, got .+\.$"):
        ranges.real("au_scale", value)


@pytest.mark.parametrize("value", [float("nan"), np.float32("nan"), float("inf"), -1000.5, 1001])
def test_numbers_outside_are_refused(value: Any) -> None:
    with pytest.raises(UserError, match=r"^`au_scale` must be from -1000 to 1000, got \S+\.$"):
        ranges.real("au_scale", value)


@pytest.mark.parametrize(("given", "used"), [(0, 1), (-0.0, 1), (0.9, 1), (1, 1), (1.1, 1.1)])
def test_guidance_up_to_1_is_none(given: float, used: float) -> None:
    assert ranges.guidance(given) == used


@pytest.mark.parametrize("steps", [8.0, "8", True, None, float("nan"), 0, -1])
def test_a_trajectory_has_a_whole_number_of_steps(tiny_bundle: Bundle, steps: Any) -> None:
    with pytest.raises(UserError, match="`steps` must be a whole number from 1 to"):
        trajectory("ddim", tiny_bundle.schedule, steps, 1.0, "v_prediction")


@pytest.mark.parametrize("strength", ["0.5", True, None, float("nan"), 0, -0.5, 2])
def test_a_trajectory_has_a_strength(tiny_bundle: Bundle, strength: Any) -> None:
    with pytest.raises(UserError, match="`strength` must be above 0 and at most 1, got"):
        trajectory("ddim", tiny_bundle.schedule, 4, strength, "v_prediction")


@pytest.mark.parametrize("solver", [None, 5, ["ddim"]])
def test_a_trajectory_has_a_solver_by_name(tiny_bundle: Bundle, solver: Any) -> None:
    with pytest.raises(UserError, match="Unknown solver"):
        trajectory(solver, tiny_bundle.schedule, 4)


def test_numpys_numbers_make_the_trajectory_of_pythons(tiny_bundle: Bundle) -> None:
    steps: Any = np.int64(4)
    found = tiny_bundle.trajectory(steps=steps, strength=np.float64(0.5))
    wanted = tiny_bundle.trajectory(steps=4, strength=0.5)
    np.testing.assert_array_equal(found.coefficients, wanted.coefficients)
