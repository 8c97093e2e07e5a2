"""Labels as people write them."""

from __future__ import annotations

from typing import Any

import pytest

from synfer_rt.errors import UserError
from synfer_rt.vocabulary.expressions import EXPRESSIONS, choose_labels, parse_label
from synfer_rt.vocabulary.label_schemes import scheme


@pytest.mark.parametrize(
    ("labels", "expected"),
    [
        ("all", EXPRESSIONS),
        (["sad", "happy"], ("sad", "happy")),
        ([" Happy ", "SAD"], ("happy", "sad")),
        (("happiness", "angry", "fearful"), ("happy", "anger", "fear")),
    ],
)
def test_labels_are_read(labels: Any, expected: tuple[str, ...]) -> None:
    assert choose_labels(labels, EXPRESSIONS) == expected


def test_an_unknown_label_is_refused_with_the_nearest() -> None:
    with pytest.raises(UserError, match="'suprise'; the nearest of this model is surprise"):
        choose_labels(["happy", "suprise"], EXPRESSIONS)


def test_a_label_that_the_model_lacks_is_refused() -> None:
    with pytest.raises(UserError, match="Unknown label 'contempt'"):
        choose_labels(["contempt"], scheme("affectnet-7"))


@pytest.mark.parametrize(
    "labels", [["happy", "happy"], ["sad", "happiness", "happy"], ("fear", "fearful")]
)
def test_a_label_given_twice_is_refused(labels: Any) -> None:
    with pytest.raises(
        UserError, match=r"^`labels` contains (happy|fear) twice; write each label once\.$"
    ):
        choose_labels(labels, EXPRESSIONS)


@pytest.mark.parametrize("word", ["all", "happy,sad", "", " "])
def test_each_label_is_one(word: str) -> None:
    with pytest.raises(UserError, match=f"^Unknown label '{word.strip()}'; the nearest of this"):
        choose_labels(["happy", word], EXPRESSIONS)


@pytest.mark.parametrize("labels", [[], ()])
def test_no_label_is_refused(labels: Any) -> None:
    with pytest.raises(UserError, match='`labels` is empty; write `labels="all"`, or some of'):
        choose_labels(labels, EXPRESSIONS)


@pytest.mark.parametrize(
    "labels",
    ["happy", "happy,sad", "All", "", 3, None, [3], ["happy", None], b"happy", {"happy": 1}],
)
def test_labels_of_another_type_are_refused(labels: Any) -> None:
    with pytest.raises(UserError, match=r'^`labels` must be "all" or a list of labels such'):
        choose_labels(labels, EXPRESSIONS)


def test_one_label_is_one() -> None:
    assert parse_label("Happiness", EXPRESSIONS) == "happy"
    with pytest.raises(UserError, match="`label` must be a text, got 3"):
        parse_label(3, EXPRESSIONS)
    with pytest.raises(UserError, match="Unknown label 'happy,sad'"):
        parse_label("happy,sad", EXPRESSIONS)
