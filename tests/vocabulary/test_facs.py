"""Action units: names, vocabularies, what users may write, and the vectors that models take."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from synfer_rt.errors import UserError
from synfer_rt.vocabulary import facs

ALL = facs.OPENGRAPHAU_41


def test_opengraphau_has_41_units_in_its_own_order() -> None:
    assert len(ALL) == len(set(ALL)) == 41
    assert ALL[:5] == ("AU1", "AU2", "AU4", "AU5", "AU6")
    assert ALL[24:29] == ("AU32", "AU38", "AU39", "L1", "R1")
    assert ALL[-4:] == ("L12", "R12", "L14", "R14")


@pytest.mark.parametrize(
    ("name", "length"), [("opengraphau-41", 41), ("disfa-12", 12), ("bp4d-12", 12), ("disfa-8", 8)]
)
def test_vocabularies_are_found_by_name(name: str, length: int) -> None:
    assert len(set(facs.vocabulary(name))) == length


def test_every_unit_of_every_vocabulary_has_its_facs_name() -> None:
    assert set().union(*facs.VOCABULARIES.values()) == set(facs.ACTION_UNITS)
    assert facs.ACTION_UNITS["AU12"] == "lip corner puller"
    assert facs.ACTION_UNITS["L12"] == "left lip corner puller"


def test_an_unknown_vocabulary_is_refused() -> None:
    with pytest.raises(UserError, match="known are opengraphau-41, disfa-12"):
        facs.vocabulary("emfacs")


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"AU12": 0.8}, {"AU12": 0.8}),
        ({"au12": 1, " l12 ": 0.4}, {"AU12": 1.0, "L12": 0.4}),
        ({"AU12": 0}, {"AU12": 0.0}),
        ({}, {}),
    ],
)
def test_units_are_read(given: dict[str, float], expected: dict[str, float]) -> None:
    assert facs.in_vocabulary(given, ALL) == expected


def test_a_unit_given_twice_is_refused() -> None:
    said = r"^`aus` contains AU1 twice; write each unit once\.$"
    with pytest.raises(UserError, match=said):
        facs.in_vocabulary({"AU1": 0.1, "AU4": 1, "au1": 0.9}, ALL)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"AU21": 0.5}, "Unknown action unit 'AU21'; the nearest of this model is AU"),
        ({"smile": 1}, "Unknown action unit 'SMILE'"),
        ({"": 1}, "Unknown action unit ''"),
        ({"AU12=0.8": 1}, "Unknown action unit 'AU12=0.8'; the nearest of this model is AU"),
        ({"AU12": "0.8"}, "intensity of AU12 must be a number from 0 to 1, got '0.8'"),
        ({"AU12": 1.5}, "intensity of AU12 must be from 0 to 1, got 1.5"),
        ({"AU12": -0.1}, "intensity of AU12 must be from 0 to 1, got -0.1"),
        ({"AU12": float("nan")}, "intensity of AU12 must be from 0 to 1, got nan"),
        ({12: 0.8}, "`aus` must have names such as AU12, got 12"),
        (["AU12=0.8"], r"`aus` must be a mapping such as {\"AU12\": 0.8}, got \['AU12=0.8'\]"),
        ("AU12=0.8", "`aus` must be a mapping"),
    ],
)
def test_bad_units_are_refused(given: Any, message: str) -> None:
    with pytest.raises(UserError, match=message):
        facs.in_vocabulary(given, ALL)


def test_a_unit_that_the_model_lacks_is_refused() -> None:
    with pytest.raises(UserError, match="Unknown action unit 'AU7'"):
        facs.in_vocabulary({"AU7": 1.0}, facs.vocabulary("disfa-12"))


OWN = ("au12", "Smile", "l12")


@pytest.mark.parametrize(
    ("name", "expected"), [("AU12", "au12"), ("au12", "au12"), ("smile", "Smile")]
)
def test_a_unit_is_found_however_its_vocabulary_writes_it(name: str, expected: str) -> None:
    assert facs.in_vocabulary({name: 0.5}, OWN) == {expected: 0.5}


def test_an_unknown_unit_is_told_the_nearest_as_its_vocabulary_writes_it() -> None:
    with pytest.raises(UserError, match=r"nearest of this model is l12 \(left lip corner puller\)"):
        facs.in_vocabulary({"L11": 1.0}, OWN)


def test_a_vector_finds_units_in_upper_and_lower_case() -> None:
    assert facs.au_vector({"AU12": 0.5, "Smile": 0.25}, OWN).tolist() == [0.5, 0.25, 0.5]
    assert facs.au_vector({"au12": 0.5})[ALL.index("R12")] == 0.5


def vector(**aus: float) -> dict[str, float]:
    """The units that are not 0 in the vector of these AUs."""
    values = facs.au_vector(aus)
    return {name: float(v) for name, v in zip(ALL, values, strict=True) if v}


def test_a_unit_acts_on_both_sides() -> None:
    assert vector(AU12=0.5) == {"AU12": 0.5, "L12": 0.5, "R12": 0.5}


def test_a_unit_without_sides_stands_alone() -> None:
    assert vector(AU26=0.5) == {"AU26": 0.5}


def test_a_side_given_alone_raises_its_unit() -> None:
    assert vector(L12=0.25) == {"AU12": 0.25, "L12": 0.25}


def test_the_unit_of_two_sides_is_the_stronger_one() -> None:
    assert vector(L4=0.25, R4=0.75) == {"AU4": 0.75, "L4": 0.25, "R4": 0.75}


def test_a_side_beside_its_unit_overrides_that_side() -> None:
    assert vector(AU2=0.5, R2=0.25) == {"AU2": 0.5, "L2": 0.5, "R2": 0.25}


def test_a_vector_has_the_order_of_its_vocabulary() -> None:
    names = facs.vocabulary("disfa-8")
    values = facs.au_vector({"AU25": 0.5, "L12": 1.0}, names)
    assert values.dtype == np.float32
    assert values.tolist() == [0, 0, 0, 0, 0, 1.0, 0.5, 0]


def test_mirroring_exchanges_left_and_right_and_nothing_else() -> None:
    one = facs.au_vector({"AU26": 0.5, "L12": 0.25, "R4": 0.75})
    other = facs.au_vector({"AU26": 0.5, "R12": 0.25, "L4": 0.75})
    np.testing.assert_array_equal(facs.mirror(np.stack([one, other])), np.stack([other, one]))


def test_the_vectors_of_several_are_those_of_each() -> None:
    several: list[dict[str, float]] = [{"AU12": 0.4}, {}, {"l12": 0.3, "r12": 0.8}, {"AU99": 1.0}]
    for names in (facs.OPENGRAPHAU_41, ("au12", "L12", "AU6")):
        rows = facs.au_vectors(several, names)
        assert rows.dtype == np.float32
        for row, aus in zip(rows, several, strict=True):
            np.testing.assert_array_equal(row, facs.au_vector(aus, names))
    np.testing.assert_array_equal(rows[2], np.array([0.8, 0.3, 0], np.float32))


def test_intensities_are_the_shortest_decimals_of_the_vector() -> None:
    said = facs.au_intensities({"AU12": 0.7, "L1": 1 / 3})
    assert list(said) == list(facs.OPENGRAPHAU_41)
    assert {name: x for name, x in said.items() if x} == {
        **dict.fromkeys(("AU12", "L12", "R12"), 0.7),
        **dict.fromkeys(("AU1", "L1"), 0.33333334),
    }
