"""Signatures that show every keyword argument."""

from __future__ import annotations

import inspect
from typing import Any, TypedDict, Unpack

import pytest

from synfer_rt.signatures import spelled_out


class Colours(TypedDict, total=False):
    """What `paint` takes."""

    shade: int | None
    tint: str | None


@spelled_out(Colours, {"shade": 3})
def paint(wall: str, *, twice: bool = False, **colours: Unpack[Colours]) -> dict[str, Any]:
    """Paint a wall."""
    return {"wall": wall, "twice": twice, **colours}


def test_each_key_is_an_argument_with_its_default_and_type() -> None:
    found = inspect.signature(paint)
    assert list(found.parameters) == ["wall", "twice", "shade", "tint"]
    assert [found.parameters[name].default for name in ("shade", "tint")] == [3, None]
    assert found.parameters["shade"].annotation == int | None
    assert (paint.__name__, paint.__doc__) == ("paint", "Paint a wall.")


def test_what_is_given_is_passed_on() -> None:
    assert paint("north", tint="red") == {"wall": "north", "twice": False, "tint": "red"}


def test_what_is_no_argument_is_refused() -> None:
    unknown: Any = {"colour": "red"}
    with pytest.raises(TypeError, match=r"^paint\(\) got an unexpected keyword argument 'colour'"):
        paint("north", **unknown)
