"""Labels as people write them."""

from __future__ import annotations

from typing import Any

import pytest

from synfer_rt.errors import UserError
from synfer_rt.vocabulary.expressions import EXPRESSIONS, parse_label, parse_labels
from synfer_rt.vocabulary.label_schemes import scheme


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("all", EXPRESSIONS),
        ("sad,happy", ("sad", "happy")),
        (" Happy , SAD ", ("happy", "sad")),
        ("happiness,angry,fearful", ("happy", "anger", "fear")),
        ("happy,,", ("happy",)),
        (["happy", " Sadness"], ("happy", "sad")),
        (("all",), EXPRESSIONS),
    ],
)
def test_labels_are_read(text: str | list[str], expected: tuple[str, ...]) -> None:
    assert parse_labels(text, EXPRESSIONS) == expected


def test_an_unknown_label_is_refused_with_the_nearest() -> None:
    with pytest.raises(UserError, match="'suprise'; the nearest of this model is surprise"):
        parse_labels("happy,suprise", EXPRESSIONS)


def test_a_label_that_the_model_lacks_is_refused() -> None:
    with pytest.raises(UserError, match="Unknown label 'contempt'"):
        parse_labels("contempt", scheme("affectnet-7"))


@pytest.mark.parametrize("text", ["happy,happy", "sad,happiness,happy", ["fear", "fearful"]])
def test_a_label_given_twice_is_refused(text: str | list[str]) -> None:
    with pytest.raises(
        UserError, match=r"^`labels` contains (happy|fear) twice; write each label once\.$"
    ):
        parse_labels(text, EXPRESSIONS)


@pytest.mark.parametrize("text", ["", " ", ",,"])
def test_no_label_is_refused(text: str) -> None:
    with pytest.raises(UserError, match="`labels` is empty; write all"):
        parse_labels(text, EXPRESSIONS)


@pytest.mark.parametrize("labels", [3, None, [3], ["happy", None], b"happy", {"happy": 1}])
def test_labels_of_another_type_are_refused(labels: Any) -> None:
    with pytest.raises(UserError, match=r"^`labels` must be all, a text such as happy,sad or a"):
        parse_labels(labels, EXPRESSIONS)


def test_one_label_is_one() -> None:
    assert parse_label("Happiness", EXPRESSIONS) == "happy"
    with pytest.raises(UserError, match="'happy,sad' is more than one label"):
        parse_label("happy,sad", EXPRESSIONS)
