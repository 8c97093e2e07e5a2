"""How the control of action units is measured."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("torch", reason="judging needs PyTorch (synfer-rt[reference])")

from reference.evaluation import action_units
from synfer_rt.sampling.requests import make_requests
from synfer_rt.vocabulary import facs, prompts

UNITS = ("AU4", "AU12")
STEPS = action_units.STRENGTHS


def column(name: str) -> int:
    return facs.OPENGRAPHAU_41.index(name)


def answered(faces: int = 3) -> np.ndarray:
    """What a perfect reader sees in perfect sweeps of UNITS."""
    read = np.zeros((len(UNITS), faces, len(STEPS), 41))
    for i, unit in enumerate(UNITS):
        read[i, ..., column(unit)] = STEPS
    return read


@pytest.mark.parametrize("expression", prompts.EXPRESSION_WORDS)
def test_a_sweeps_prompt_is_the_whole_sentence_without_its_expression(expression):
    rng = np.random.default_rng(0)
    for _ in range(50):
        face, u = prompts.draw(rng.random(prompts.DRAWS)), rng.random(3).tolist()
        said = action_units.without_expression(prompts.describe(face, expression, u))
        assert said == prompts.describe(face, None, u)


def test_the_further_units_are_those_of_the_renderer():
    assert tuple(f"AU{n}" for n in (7, 14, 16, 17, 18, 22, 23, 24, 27)) == action_units.FURTHER


def test_a_sweep_changes_one_unit_on_one_face(tiny_bundle):
    requests = action_units.sweeps(make_requests(tiny_bundle, seed=7), UNITS, faces=2)
    assert len(requests) == len(UNITS) * 2 * len(STEPS)
    first = requests[: len(STEPS)]
    assert [request.aus for request in first] == [{"AU4": float(x)} for x in STEPS]
    assert len({(r.index, r.seed, r.prompt, r.layout) for r in first}) == 1


def test_sides_are_asked_for_one_by_one_on_one_face(tiny_bundle):
    requests = action_units.sides(make_requests(tiny_bundle, seed=7), faces=2)
    assert [r.aus for r in requests[:4]] == [
        {"L12": left, "R12": right} for left, right in ((0, 0), (1, 0), (0, 1), (1, 1))
    ]
    assert [r.index for r in requests[:8]] == [0] * 4 + [1] * 4
    assert requests[8].aus == {"L14": 0, "R14": 0} and len(requests) == 16


def test_a_unit_that_follows_correlates_and_one_that_opposes_does_the_other_way():
    read = answered()
    read[1] *= -1
    found = action_units.sweep_correlations(read, UNITS)
    assert found == {"AU4": pytest.approx(1), "AU12": pytest.approx(-1)}


def test_changes_are_of_the_unit_itself_and_of_the_others_in_absolute_terms():
    units = (*UNITS, "AU26")
    read = np.zeros((3, 2, len(STEPS), 41))
    read[:2] = answered(2) * 0.5
    # Two faces that change against each other: the mean is nothing, the change is not.
    read[0, 0, -1, column("AU12")], read[0, 1, -1, column("AU12")] = 0.2, -0.4
    # Not among the units.
    read[0, :, -1, column("AU39")] = 1
    found = action_units.changes(read, units)
    assert found["AU4"] == (pytest.approx(0.5), pytest.approx(0.15))
    assert found["AU12"] == (pytest.approx(0.5), 0)


def test_a_reader_is_judged_on_all_strengths_alike():
    true = np.zeros((5000, 41))
    true[:60, column("AU4")] = np.tile(STEPS, 10)
    read = true.copy()
    noise = np.random.default_rng(0).normal(0, 1e-6, 5000)
    read[:, column("AU4")] += noise
    # Among all renders, hardly any of which show it, the ranks are those of the noise.
    found = action_units.reader_correlations(read, true, ["AU4"])["AU4"]
    assert found > 0.95
    assert action_units.reader_correlations(-read, true, ["AU4"])["AU4"] < -0.95


def shown_sides(sign: float) -> np.ndarray:
    read = np.zeros((len(action_units.ONE_SIDED), 3, 4, 41))
    for i, number in enumerate((12, 14)):
        for k, (left, right) in enumerate(action_units.SIDES.values()):
            read[i, :, k, column(f"L{number}")] = left if sign > 0 else right
            read[i, :, k, column(f"R{number}")] = right if sign > 0 else left
    return read


def test_a_smile_on_the_side_that_was_asked_for_is_asymmetry_as_asked_for():
    found = action_units.asymmetry(shown_sides(1))
    assert found["AU12"]["correlation"] == pytest.approx(1)
    assert found["AU14"]["left_minus_right"] == {"none": 0, "left": 1, "right": -1, "both": 0}


def test_a_smile_on_the_other_side_is_its_opposite():
    for one in action_units.asymmetry(shown_sides(-1)).values():
        assert one["correlation"] == pytest.approx(-1)


def test_a_readers_asymmetry_counts_renders_that_show_the_unit():
    rng = np.random.default_rng(0)
    true = np.zeros((200, 41))
    for n in (12, 14):
        true[:50, column(f"L{n}")], true[:50, column(f"R{n}")] = rng.random((2, 50))
        true[:50, column(f"AU{n}")] = 1
    read = true.copy()
    read[50:, column("L12")] = 9
    read[:, column("R14")], read[:, column("L14")] = true[:, column("L14")], true[:, column("R14")]
    found = action_units.reader_asymmetry(read, true)
    assert found == {"AU12": pytest.approx(1), "AU14": pytest.approx(-1)}


def test_action_units_agree_when_shown_where_asked_for():
    asked = facs.au_vector({"AU12": 0.8, "AU6": 0.2})[None]
    assert action_units.au_agreement(asked, asked) == [1.0]
    read = asked.copy()
    read[0, column("AU12")] = 0.1
    read[0, column("AU4")] = 0.9
    assert action_units.au_agreement(asked, read) == [pytest.approx(10 / 12)]
