"""Columns of action units are known by their names, and their cells become intensities."""

from __future__ import annotations

import re

import pytest

from synfer_rt.data.datasets.tables.unit_columns import Unit, unit_columns, unit_of


@pytest.mark.parametrize(
    ("column", "unit"),
    [
        ("AU12", Unit("AU12", 1)),
        ("AU01_r", Unit("AU1", 5)),
        ("au12r", Unit("AU12", 5)),
        ("aus.AU06", Unit("AU6", 1)),
        ("L14", Unit("L14", 1)),
        ("AU12_c", None),
        ("AU", None),
        ("r", None),
        ("beau12x", None),
    ],
)
def test_a_column_is_known_by_its_name(column, unit):
    assert unit_of(column) == unit


@pytest.mark.parametrize(
    ("names", "row", "aus"),
    [
        (["au12", "au6"], {"au12": "0.25", "au6": ""}, {"AU12": 0.25}),
        (["au12r", "au12c"], {"au12r": "2.5", "au12c": "1"}, {"AU12": 0.5}),
        (["au12", "au12r"], {"au12": "1", "au12r": "1"}, {"AU12": 0.2}),
        (["aus"], {"aus": {"AU12": 1, "R12": 0.123456, "AU99": 1}}, {"AU12": 1, "R12": 0.1235}),
        (["au1", "l1", "r1"], {"au1": 0.5, "l1": 0.5, "r1": 0}, {"AU1": 0.5, "L1": 0.5, "R1": 0}),
        (["au12"], {"au12": "-1"}, None),
        (["au12", "success"], {"au12": "0.5", "success": "0"}, None),
        (["au12"], {"au12": "nan"}, None),
    ],
)
def test_cells_become_intensities(names, row, aus):
    columns = unit_columns(names)
    assert columns is not None and columns.of(row) == aus


@pytest.mark.parametrize("names", [[], ["l1", "r1"], ["label", "au99", "au12c"]])
def test_other_columns_are_no_units(names):
    assert unit_columns(names) is None


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ({"au12": "3"}, "its column au12 must be from 0 to 1, but says '3'; .* 0 to 5 AU12_r"),
        ({"au12": "0,3"}, "but says '0,3'; correct it$"),
        ({"au4r": "5.5"}, "its column au4r must be from 0 to 5"),
    ],
)
def test_what_is_no_intensity_is_said(row, said):
    columns = unit_columns(["au12", "au4r"])
    assert columns is not None
    problem = columns.of(row)
    assert isinstance(problem, str) and re.search(said, problem), problem
