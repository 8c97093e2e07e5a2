"""What a student must reach, by readings whose differences are known."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

pytest.importorskip("torch", reason="judging needs PyTorch (synfer-rt[reference])")

from reference.evaluation import action_units, comparison
from reference.evaluation.comparison import Read, Row
from reference.evaluation.diversity import held_out
from synfer_rt.sampling.requests import Request
from synfer_rt.vocabulary import prompts
from synfer_rt.vocabulary.facs import OPENGRAPHAU_41

N = 400
CLASSES = np.arange(N) % 8
FACE = prompts.Attributes(prompts.AGES[1], prompts.GENDERS[0], prompts.ANCESTRIES[0])
SENTENCE = prompts.describe(FACE, None, (0.0, 0.0, 0.0))


@pytest.fixture
def teacher() -> Read:
    """Of 400 images the judge misreads none and `fer` a quarter; all show what the prompt says."""
    rng = np.random.default_rng(0)
    return Read(
        np.zeros((N, 4, 4, 3), np.uint8),
        {"judge": np.ones(N, bool), "fer": np.arange(N) % 4 > 0},
        rng.normal(size=(N, 4)),
        np.ones(N),
        np.tile([1, 0, 0], (N, 1)),
    )


def wrong(first: int, right: np.ndarray) -> np.ndarray:
    """The same with the first images misread."""
    return right & (np.arange(len(right)) >= first)


def gates(rows: list[Row]) -> dict[str, bool | None]:
    return {row.measure: row.holds for row in rows}


def test_the_judge_may_lose_a_point_and_fer_its_interval(teacher: Read) -> None:
    for lost, holds in ((4, True), (5, False)):
        rights = teacher.rights | {"judge": wrong(lost, teacher.rights["judge"])}
        rows = comparison.expression(teacher, replace(teacher, rights=rights))
        assert gates(rows) == {"judge": holds, "fer": True, "AU agreement": None}
    half = rows[1].teacher[1]
    for lost, holds in ((int(half * N) - 1, True), (int(half * N) + 1, False)):
        fewer = teacher.rights["fer"].copy()
        fewer[np.flatnonzero(fewer)[:lost]] = False
        rights = teacher.rights | {"fer": fewer}
        rows = comparison.expression(teacher, replace(teacher, rights=rights))
        assert gates(rows)["fer"] == holds
        assert rows[1].difference[0] == pytest.approx(-lost / N)


def test_prompt_control_may_not_lie_below_the_teachers(teacher: Read) -> None:
    requests = [Request(i, 0, "happy", SENTENCE, "", {}, 1.0, 1.0, None) for i in range(N)]
    assert all(gates(comparison.prompt(teacher, teacher, requests)).values())
    bands = teacher.bands.copy()
    bands[:20, 1] = 1
    rows = comparison.prompt(teacher, replace(teacher, bands=bands), requests)
    assert gates(rows) == {"age": True, "gender": False, "ancestry": True}
    assert rows[1].student[0] == pytest.approx(0.95)


def test_less_variety_and_another_distribution_fail(teacher: Read) -> None:
    real = held_out(np.random.default_rng(1).normal(size=(N, 4)), np.arange(N), 99)
    same = comparison.variety(teacher, teacher, CLASSES, real)
    assert all(gates(same).values())
    assert same[0].difference == (0, 0) and same[1].difference == (1, 0)
    narrow = replace(teacher, features=0.9 * teacher.features)
    fréchet, pairs = comparison.variety(teacher, narrow, CLASSES, real)
    assert pairs.difference == pytest.approx((0.9, 0), abs=1e-9) and pairs.holds is False
    features = teacher.features.copy()
    features[:, 0] += 1
    fréchet, pairs = comparison.variety(teacher, replace(teacher, features=features), CLASSES, real)
    assert fréchet.holds is False and pairs.holds is True
    assert fréchet.difference[0] == pytest.approx(1, abs=0.3)


def swept(noise: float) -> np.ndarray:
    """Readings of AU1 and AU2 on 6 faces that rise with the request, with noise."""
    read = np.random.default_rng(0).normal(0, noise, (2, 6, 6, 41))
    for i, name in enumerate(("AU1", "AU2")):
        read[i, ..., OPENGRAPHAU_41.index(name)] += action_units.STRENGTHS
    return read


def test_every_unit_must_follow_its_request() -> None:
    both = swept(0.01), swept(0.01)
    both[1][1] *= -1
    first, second = comparison.units(*both, ("AU1", "AU2"))
    assert first.holds is True and first.difference == (0, 0)
    assert second.holds is False and second.student[0] < -0.9 and second.difference[0] < -1.8


def test_a_side_must_follow_its_request() -> None:
    read = np.random.default_rng(0).normal(0, 0.01, (2, 5, 4, 41))
    for i, unit in enumerate(action_units.ONE_SIDED):
        for j, (left, right) in enumerate(action_units.SIDES.values()):
            read[i, :, j, OPENGRAPHAU_41.index(f"L{unit[2:]}")] += left
            read[i, :, j, OPENGRAPHAU_41.index(f"R{unit[2:]}")] += right
    mirrored = read.copy()
    mirrored[1] *= -1
    assert [row.holds for row in comparison.sides(read, mirrored)] == [True, False]


def test_a_row_writes_percent_spread_and_part() -> None:
    value = (0.5, 0.01)
    rows = [
        Row("a", "share", value, value, (-0.004, 0.001), "at least -1", True),
        Row("b", "fréchet", value, value, (0.0041, 0.0002), "at most +0.004", False),
        Row("c", "ratio", value, value, (0.98, 0.02)),
        Row("d", "number", value, value, value),
    ]
    assert [row.cells()[1:] for row in rows] == [
        ["50.0 ± 1.0", "50.0 ± 1.0", "-0.4 ± 0.1", "at least -1", "yes"],
        ["0.5000 (0.0100)", "0.5000 (0.0100)", "+0.0041 (0.0002)", "at most +0.004", "**no**"],
        ["0.500 ± 0.010", "0.500 ± 0.010", "x 0.980 ± 0.020", "", ""],
        ["0.500 ± 0.010", "0.500 ± 0.010", "+0.500 ± 0.010", "", ""],
    ]


def test_images_differ_by_levels(teacher: Read) -> None:
    brighter = replace(teacher, images=teacher.images + np.uint8(3))
    assert comparison.image_difference(teacher, brighter)[0] == 3
