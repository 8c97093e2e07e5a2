"""What users write on the command line, as the values that the library takes."""

from __future__ import annotations

from pathlib import Path

import click
import pytest

from synfer_rt.commands.parsing import Balance, Intensity, Labels, Size, by_unit
from synfer_rt.commands.sample import sample
from synfer_rt.errors import UserError


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("all", "all"),
        (" All ", "all"),
        ("all,", "all"),
        ("happy", ["happy"]),
        ("sad,happy", ["sad", "happy"]),
        (" Happy , SAD ", ["Happy", "SAD"]),
        ("happy,,", ["happy"]),
        ("happy,all", ["happy", "all"]),  # which the library refuses: all is no label
        ("", []),
        (" , ", []),
    ],
)
def test_labels_are_split_at_commas(text: str, expected: str | list[str]) -> None:
    assert Labels().convert(text, None, None) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("AU12=0.8", ("AU12", 0.8)),
        ("au12=.8", ("AU12", 0.8)),
        ("12=1", ("AU12", 1.0)),
        ("AU12", ("AU12", 1.0)),
        ("6", ("AU6", 1.0)),
        (" L12 =0.4", ("L12", 0.4)),
        ("AU12= 0.4 ", ("AU12", 0.4)),
        ("AU12=0", ("AU12", 0.0)),
        ("smile=1", ("SMILE", 1.0)),
        ("AU12=1.5", ("AU12", 1.5)),  # the library checks the range
    ],
)
def test_an_assignment_is_read(text: str, expected: tuple[str, float]) -> None:
    assert Intensity().convert(text, None, None) == expected


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("AU12=high", "^The intensity of AU12 must be a number from 0 to 1, got 'high'"),
        ("12=much", "^The intensity of AU12 must be a number from 0 to 1, got 'much'"),
        ("AU12=", "^The intensity of AU12 must be a number from 0 to 1, got ''"),
        ("AU12=0.5=1", "^The intensity of AU12 must be a number from 0 to 1, got '0.5=1'"),
        ("=0.5", "^`aus` must be an action unit such as AU12=0.8, got '=0.5'"),
        ("", "^`aus` must be an action unit such as AU12=0.8, got ''"),
    ],
)
def test_what_is_no_assignment_is_refused(text: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        Intensity().convert(text, None, None)


def given(*texts: str) -> dict[str, float] | None:
    """What `synfer-rt sample` gets of these `--au`."""
    arguments = [word for text in texts for word in ("--au", text)]
    with sample.make_context("sample", arguments) as context:
        return context.params["aus"]


def test_repeated_assignments_are_a_mapping() -> None:
    assert given("AU12=0.8", "6", "l12=0") == {"AU12": 0.8, "AU6": 1.0, "L12": 0.0}
    assert given() is None


@pytest.mark.parametrize("again", ["AU12=0.8", "au12", "12=0.5", " AU12 =1"])
def test_a_unit_given_twice_is_refused(again: str) -> None:
    with pytest.raises(UserError, match=r"^`aus` contains AU12 twice; write each unit once"):
        given("AU12=0.8", "AU6", again)
    with pytest.raises(UserError, match=r"^`aus` contains AU12 twice"):
        by_unit(click.Context(sample), sample.params[0], [("AU12", 0.8), ("AU12", 0.8)])


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("max", "max"),
        ("3", 3),
        ("0", 0),
        ("000", 0),
        ("0" * 30 + "3000000", 3_000_000),
        ("counts.json", Path("counts.json")),
        ("most", Path("most")),  # a file, which the library does not find
        ("-3", Path("-3")),
        ("1.5", Path("1.5")),
        ("\u00b2", Path("\u00b2")),
        ("\u0663", Path("\u0663")),
    ],
)
def test_a_balance_is_max_a_number_or_a_file(text: str, expected: object) -> None:
    found = Balance().convert(text, None, None)
    assert found == expected and type(found) in (str, int, type(Path()))


def test_a_number_of_any_length_is_read() -> None:
    found = Balance().convert("9" * 5000, None, None)
    assert isinstance(found, int) and found > 10**18


def test_an_address_is_no_balance() -> None:
    with pytest.raises(UserError, match=r"s3://bucket/counts\.json is an address"):
        Balance().convert("s3://bucket/counts.json", None, None)


def test_a_size_is_height_and_width() -> None:
    assert Size().convert(" 512X768", None, None) == (512, 768)


@pytest.mark.parametrize("text", ["32", "32x", "0x32", "32x32x32", "ax32", "32x-8", "9" * 9 + "x8"])
def test_what_is_no_size_is_refused(text: str) -> None:
    with pytest.raises(UserError, match="must be height and width such as 512x512, got"):
        Size().convert(text, None, None)
