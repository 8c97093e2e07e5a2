"""How many images a balanced dataset has of each class, and the order of the additions."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from synfer_rt.errors import UserError
from synfer_rt.jobs.balance import additions, targets
from tests.jobs.long_tail import COUNTS


def test_max_brings_every_class_to_the_largest():
    assert targets(COUNTS, "max") == {"happy": 5, "sad": 5, "fear": 5}


def test_a_number_takes_nothing_away():
    assert targets(COUNTS, 3) == {"happy": 5, "sad": 3, "fear": 3}


def test_a_file_names_classes_in_the_usual_ways(tmp_path: Path):
    (tmp_path / "b.json").write_text(json.dumps({"sadness": 4, "Happy": 1}))
    assert targets(COUNTS, tmp_path / "b.json") == {"happy": 5, "sad": 4, "fear": 1}


def test_a_class_without_images_is_refused(tmp_path: Path):
    (tmp_path / "b.json").write_text(json.dumps({"contempt": 4}))
    with pytest.raises(UserError, match="no image to vary"):
        targets(COUNTS, tmp_path / "b.json")


@pytest.mark.parametrize("wrong", ["most", "3", "b.json", -3, 1.5, True, None])
def test_anything_else_is_refused(wrong: Any):
    with pytest.raises(UserError, match=f'^`balance` must be "max", a whole .*, got {wrong!r}'):
        targets(COUNTS, wrong)


def test_a_file_that_is_not_there_is_refused(tmp_path: Path):
    with pytest.raises(UserError, match=r"`balance` must be max.*b\.json \(No such file"):
        targets(COUNTS, tmp_path / "b.json")


@pytest.mark.parametrize(
    "text",
    ['{"sad": Infinity}', '{"sad": NaN}', '{"sad": 3.5}', '{"sad": true}', "[" * 100_000, "[3]"],
)
def test_a_file_without_numbers_is_refused(tmp_path: Path, text: str):
    (tmp_path / "b.json").write_text(text)
    with pytest.raises(UserError, match="`balance` must be max, a number or a JSON file"):
        targets(COUNTS, tmp_path / "b.json")


def test_a_class_that_is_named_twice_is_refused():
    with pytest.raises(UserError, match="`balance` must name each class once, got sad twice"):
        targets(COUNTS, {"sad": 4, "Sadness": 5})


@pytest.mark.parametrize("number", ["5000000", "1000000000", "9" * 4000])
def test_more_additions_than_anybody_makes_are_refused(tmp_path: Path, number: str):
    (tmp_path / "b.json").write_text(json.dumps({"sad": float(number), "fear": 6_000_000}))
    for balance in (int(number), tmp_path / "b.json"):
        with pytest.raises(UserError, match=r"`balance` .*(at most 10000000 additions|infin)"):
            targets(COUNTS, balance)
    assert targets(COUNTS, 3_000_000)["fear"] == 3_000_000


def test_additions_fill_up_exactly_and_take_turns():
    labels = additions(COUNTS, targets(COUNTS, "max"))
    assert Counter(labels) == {"sad": 3, "fear": 4}
    assert labels[:4] == ("sad", "fear", "sad", "fear")
