"""Confidence intervals against their definitions, and against published examples."""

from __future__ import annotations

import math

import pytest

from synfer_rt.report.intervals import difference, wilson

Z = 1.959963984540054


@pytest.mark.parametrize(("hits", "count"), [(0, 10), (1, 10), (81, 263), (15, 148), (10, 10)])
def test_wilsons_ends_are_where_the_score_test_just_rejects(hits: int, count: int):
    for end in wilson(hits, count):
        deviation = hits / count - end
        assert deviation**2 == pytest.approx(Z * Z * end * (1 - end) / count, abs=1e-5)


def test_wilson_of_newcombes_example():
    """Newcombe 1998, Statistics in Medicine 17:857, table I: 81 of 263 is 0.2553 to 0.3662."""
    assert wilson(81, 263) == pytest.approx((0.2553, 0.3662), abs=5e-5)


def test_nothing_is_known_of_none():
    assert wilson(0, 0) == (0, 1) and difference((0, 0), (1, 2)) == (-1, 1)


def test_difference_of_newcombes_example():
    """Newcombe 1998, Statistics in Medicine 17:873, table II: 56/70 - 48/80 is 0.0524 to 0.3339."""
    assert difference((56, 70), (48, 80)) == pytest.approx((0.0524, 0.3339), abs=5e-5)


def test_a_difference_turns_its_sign_with_its_sides():
    low, high = difference((9, 10), (3, 10))
    assert difference((3, 10), (9, 10)) == pytest.approx((-high, -low))
    assert math.isclose(low + high, 0.6 * 2, abs_tol=0.3)
