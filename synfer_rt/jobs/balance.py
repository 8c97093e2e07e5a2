"""How many images of each class a balanced dataset has, and which are added in which order."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, cast

from synfer_rt import ranges
from synfer_rt.errors import UserError
from synfer_rt.judging.quotas import next_round
from synfer_rt.paths import local
from synfer_rt.vocabulary.expressions import expression

MOST_ADDITIONS = 10_000_000
"""More would take years on the fastest device, and is more likely a mistake."""
Balance = Literal["max"] | int | Path | Mapping[str, int]
"""As many as the largest class, a number, numbers by class, or a JSON file of the latter."""


def targets(counts: Mapping[str, int], balance: Balance) -> dict[str, int]:
    """How many images each class of `counts` is to have.

    `balance` is "max" (as many as the largest class), a number, {class: number}, or the Path of a
    JSON file that holds the latter; classes may be left out. Nothing is ever taken away: a class
    that has more keeps them. Raises UserError for anything else, for a class without an image to
    vary, and for more than MOST_ADDITIONS in all.
    """
    if balance == "max":
        return _checked(counts, dict.fromkeys(counts, max(counts.values())))
    if ranges.is_whole(balance, 0, None):
        return _checked(counts, dict.fromkeys(counts, int(cast(int, balance))))
    if not isinstance(balance, (Mapping, Path)):
        raise UserError(
            '`balance` must be "max", a whole number of at least 0, a mapping of numbers by class, '
            f"or the Path of a JSON file of that, got {balance!r}."
        )
    wanted = _by_class(balance)
    for label in wanted:
        if label not in counts:
            raise UserError(
                f"{balance} names the class {label}, but the dataset has no image to vary of it; "
                "leave it out, or make some images with `synfer-rt sample`."
            )
    return _checked(counts, wanted)


def _by_class(balance: Mapping[str, int] | Path) -> dict[str, int]:
    """The numbers of a mapping or a JSON file by the canonical names of their classes."""
    try:
        given = balance if isinstance(balance, Mapping) else json.loads(local(balance).read_bytes())
        wanted = {str(name): _count(count) for name, count in given.items()}
    except (OSError, TypeError, AttributeError, RecursionError, ValueError, OverflowError) as error:
        reason = str(getattr(error, "strerror", None) or error)
        raise UserError(
            '`balance` must be max, a number or a JSON file of {"class": number}, got '
            f"{balance} ({reason})."
        ) from None
    by_class: dict[str, int] = {}
    for name, count in wanted.items():
        label = expression(name) or name
        if label in by_class:
            raise UserError(f"`balance` must name each class once, got {label} twice.")
        by_class[label] = count
    return by_class


def _count(value: Any) -> int:
    """A number of images; JSON may write 4 as 4.0. Raises ValueError for what is no such number."""
    if isinstance(value, bool) or int(value) != float(value):
        raise ValueError(f"{value} is not a whole number")
    return int(value)


def _checked(counts: Mapping[str, int], wanted: Mapping[str, int]) -> dict[str, int]:
    goal = {label: max(count, wanted.get(label, 0)) for label, count in counts.items()}
    added = sum(goal.values()) - sum(counts.values())
    if added > MOST_ADDITIONS:
        raise UserError(f"`balance` must ask for at most {MOST_ADDITIONS} additions, got {added}.")
    return goal


def additions(counts: Mapping[str, int], wanted: Mapping[str, int]) -> tuple[str, ...]:
    """The labels of the images to add, the classes taking turns."""
    return tuple(next_round(counts, wanted, sum(wanted.values())))
