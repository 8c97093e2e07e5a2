"""Columns give back every record, exactly."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from synfer_rt.report.columns import ABSENT, Column, Columns, encoded


def column_of(*values: Any) -> Column:
    columns = Columns()
    for value in values:
        columns.add({"x": value})
    column = columns.get("x")
    assert column is not None
    return column


def decoded(column: Column, count: int) -> list[str]:
    form, data = encoded(column, np.arange(count))
    if "same" in form:
        return [form["same"]] * count
    array = np.frombuffer(data, "<" + form["type"])
    if "texts" in form:
        return [form["texts"][code] for code in array]
    return [json.dumps(value) for value in (array / form["over"]).tolist()]


@pytest.mark.parametrize(
    "values",
    [
        (0.1, 0.123456, 1.0),
        (0.1, 0.30000000000000004, 1e-300),
        (-1.0, 0.5, 0.25),
        ("a", "b", "a"),
        (True, False, True),
        (None, "a", 3),
        ([1, 2], [], [1, 2]),
        (2**63 - 1, 0, 5),
        (0.5, "n/a", 0.25),
        (3, 70_000, -5),
    ],
    ids=str,
)
def test_values_come_back(values: tuple[Any, ...]):
    assert [json.loads(text) for text in decoded(column_of(*values), 3)] == list(values)


def test_a_field_that_some_records_lack_is_absent_there():
    columns = Columns()
    for record in ({"a": 1}, {"a": 2, "b": {"c": 0.5}}, {"b": {"c": 0.25}}):
        columns.add(record)
    found = {path: decoded(column, 3) for path, column in columns.items()}
    assert found == {("a",): ["1", "2", ABSENT], ("b", "c"): [ABSENT, "0.5", "0.25"]}


def test_shares_take_two_bytes_and_six_decimals_four():
    short, _ = encoded(column_of(0.25, 0.5), np.arange(2))
    long, _ = encoded(column_of(0.123456, 0.5), np.arange(2))
    assert (short["type"], short["over"]) == ("u2", 10_000)
    assert (long["type"], long["over"]) == ("i4", 1_000_000)


def test_only_the_rows_that_are_asked_for_are_encoded():
    form, data = encoded(column_of("a", "b", "c", "b"), np.array([1, 3, 2]))
    assert [form["texts"][code] for code in data] == ['"b"', '"b"', '"c"']
