"""Texts of the command line as the plain values that the library takes."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import click

from synfer_rt.commands.options import LocalPath
from synfer_rt.errors import UserError


class Size(click.ParamType[tuple[int, int]]):
    """The height and width of images, written as 512x512."""

    name = "size"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[int, int]:
        """(height, width) in pixels. Raises UserError for another text."""
        found = re.fullmatch(r"([1-9]\d{0,5})x([1-9]\d{0,5})", value.strip().lower(), re.ASCII)
        if found is None:
            raise UserError(
                f"An image size must be height and width such as 512x512, got {value!r}."
            )
        return int(found[1]), int(found[2])


class Labels(click.ParamType[Literal["all"] | list[str]]):
    """`all`, or names of expressions with commas between them."""

    name = "labels"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> Literal["all"] | list[str]:
        """ "all" or the names, as they are written."""
        words = [word.strip() for word in value.split(",") if word.strip()]
        return "all" if [word.lower() for word in words] == ["all"] else words


class Intensity(click.ParamType[tuple[str, float]]):
    """The intensity of an action unit: `AU12=0.8`, `12=1`, or `AU12` for the full intensity."""

    name = "intensity"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[str, float]:
        """The unit's name in upper case, and its intensity. UserError for one that is no number."""
        written, equals, number = value.partition("=")
        unit = written.strip().upper()
        if not unit:
            raise UserError(f"`aus` must be an action unit such as AU12=0.8, got {value!r}.")
        unit = f"AU{unit}" if unit.isdecimal() else unit
        try:
            return unit, float(number) if equals else 1.0
        except ValueError:
            raise UserError(
                f"The intensity of {unit} must be a number from 0 to 1, got {number!r}."
            ) from None


def by_unit(
    ctx: click.Context, param: click.Parameter, given: Sequence[tuple[str, float]]
) -> dict[str, float] | None:
    """The intensities of a repeated option by unit, None if there are none.

    This is a callback of click. Raises UserError for a unit that is given twice.
    """
    aus: dict[str, float] = {}
    for unit, intensity in given:
        if unit in aus:
            raise UserError(f"`aus` contains {unit} twice; write each unit once.")
        aus[unit] = intensity
    return aus or None


class NoiseLevels(click.ParamType[tuple[float, float]]):
    """An interval of noise levels, written as LO:HI; without LO from 0, without HI to no limit."""

    name = "interval"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[float, float]:
        """(low, high). Raises UserError for another text."""
        low, colon, high = value.strip().partition(":")
        try:
            if not colon or not (low or high):
                raise ValueError
            return float(low or 0), float(high or math.inf)
        except ValueError:
            raise UserError(
                f"`guidance_interval` must be two noise levels such as 0.3:5, got {value!r}."
            ) from None


class Timesteps(click.ParamType[list[int]]):
    """Timesteps, written with commas between them: 999,749,499,249."""

    name = "timesteps"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> list[int]:
        """The numbers. Raises UserError for another text."""
        words = [word.strip() for word in value.split(",")]
        if not all(re.fullmatch(r"\d{1,9}", word, re.ASCII) for word in words):
            raise UserError(
                "`timesteps` must be whole numbers with commas between them, such as "
                f"999,749,499,249, got {value!r}."
            )
        return [int(word) for word in words]


class Part(click.ParamType[tuple[int, int]]):
    """A part of a run, written as K/N."""

    name = "part"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[int, int]:
        """(K, N). Raises UserError for another text."""
        found = re.fullmatch(r"(\d{1,9})/(\d{1,9})", value.strip(), re.ASCII)
        if found is None:
            raise UserError(
                "`part` must be written K/N with K from 0 to N - 1, as 0/8 to 7/8 are eight parts, "
                f"got {value!r}."
            )
        return int(found[1]), int(found[2])


class Balance(click.ParamType[Literal["max"] | int | Path]):
    """How many images the classes of a dataset get: `max`, a number, or a JSON file of numbers."""

    name = "balance"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> Literal["max"] | int | Path:
        """ "max", the number or the file's path."""
        if value == "max":
            return "max"
        if value.isascii() and value.isdecimal():
            # Python reads no number of thousands of digits; any of nineteen is too much already.
            return int(value.lstrip("0")[:19] or 0)
        return LocalPath().convert(value, param, ctx)
