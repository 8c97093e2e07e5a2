"""Intervals against cases with known results."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("scipy", reason="the experiments need synfer-rt[reference]")

from reference.evaluation import statistics


@pytest.mark.parametrize(
    "right, of, low, high",
    [(90, 100, 0.8256, 0.9448), (5, 100, 0.0215, 0.1118), (20, 20, 0.8389, 1)],
)
def test_the_interval_of_a_share_holds_wilson_s(right, of, low, high) -> None:
    share, half = statistics.share(np.arange(of) < right)
    assert share == right / of
    assert half == pytest.approx(max(share - low, high - share), abs=5e-4)


def test_what_is_seen_twice_counts_once() -> None:
    values = np.random.default_rng(3).standard_normal(50)
    once = statistics.mean(values)
    assert once[1] == pytest.approx(1.96 * values.std(ddof=1) / 50**0.5)
    assert statistics.mean(np.tile(values, 2), np.tile(np.arange(50), 2)) == pytest.approx(once)


def test_a_share_of_what_is_seen_twice_is_no_surer() -> None:
    right, people = np.arange(50) < 40, np.arange(50)
    once, twice = statistics.share(right), statistics.share(np.tile(right, 2), np.tile(people, 2))
    assert twice[0] == once[0] and twice[1] == pytest.approx(once[1], rel=0.02)
    assert statistics.share(np.tile(right, 2))[1] < 0.8 * once[1]


@pytest.mark.parametrize("gained, lost, half", [(0, 0, 0.0194), (10, 0, 0.0620), (10, 4, 0.0747)])
def test_a_gain_is_paired_and_never_sure(gained: int, lost: int, half: float) -> None:
    """Against the formula for a table of counts: (b' + c' - (b' - c')^2 / n') / n'^2."""
    case = np.arange(99)
    before = (case % 2 == 0) & (case >= gained) | (case < lost + gained) & (case >= gained)
    after = np.where(case < gained, True, np.where(case < gained + lost, False, before))
    assert statistics.gain(after, before) == pytest.approx(((gained - lost) / 99, half), abs=1e-3)


def test_few_repetitions_have_student_s_interval() -> None:
    mean, half = statistics.over_repetitions([1.0, 2.0, 3.0])
    assert mean == 2 and half == pytest.approx(4.303 / 3**0.5, rel=1e-3)


def test_a_spread_is_no_interval_of_the_mean() -> None:
    assert statistics.spread([1.0, 2.0, 3.0] * 50) == pytest.approx((2, 0.8192), abs=1e-3)


def test_the_first_image_of_each_person_is_found_in_order() -> None:
    people = np.array([7, 3, 7, 5, 3, 5])
    assert statistics.first_of_each(people).tolist() == [0, 1, 3]


def test_parts_have_all_images_and_nobody_twice() -> None:
    people = np.arange(60) // 3
    first, *others = statistics.parted(people, 3, np.random.default_rng(0))
    assert sorted(np.concatenate([first, *others])) == list(range(60))
    whose = [set(people[rows]) for rows in (first, *others)]
    assert not whose[0] & whose[1] | whose[0] & whose[2] | whose[1] & whose[2]
    assert {len(some) for some in whose} == {6, 7}
    # Neither people nor their images come in the order in which they are kept.
    assert first.tolist() != sorted(first) and whose[0] != set(range(7))


def test_the_bootstrap_finds_the_error_of_a_mean() -> None:
    values = np.random.default_rng(1).standard_normal(400)
    half = statistics.bootstrap(lambda rows: float(values[rows].mean()), 400, 400)
    assert half == pytest.approx(statistics.mean(values)[1], rel=0.15)
