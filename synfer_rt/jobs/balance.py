"""How many images of each class a balanced dataset has, and which are added in which order."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from synfer_rt.errors import UserError
from synfer_rt.judging.quotas import next_round
from synfer_rt.paths import local
from synfer_rt.vocabulary.expressions import expression

MOST_ADDITIONS = 10_000_000
"""More would take years on the fastest device, and is more likely a mistake."""
Balance = str | int | Path | Mapping[str, int]
"""`max`, a number, numbers by class, or the path of a JSON file of numbers by class."""


def targets(counts: Mapping[str, int], balance: Balance) -> dict[str, int]:
    """How many images each class of `counts` is to have.

    `balance` is "max" (as many as the largest class), a number, {class: number}, or the path of a
    JSON file that holds the latter; classes may be left out. Nothing is ever taken away: a class
    that has more keeps them. Raises UserError for anything else, for a class without an image to
    vary, and for more than MOST_ADDITIONS in all.
    """
    if isinstance(balance, int):
        balance = str(balance)
    text = balance if isinstance(balance, str) else ""
    if text == "max" or (text.isascii() and text.isdecimal()):
        # Python reads no number of thousands of digits; any of nineteen is too much already.
        level = max(counts.values()) if text == "max" else int(text.lstrip("0")[:19] or 0)
        return _checked(counts, dict.fromkeys(counts, level))
    try:
        given = balance if isinstance(balance, Mapping) else json.loads(local(balance).read_bytes())
        wanted = {expression(str(name)) or str(name): int(count) for name, count in given.items()}
    except (OSError, TypeError, AttributeError, RecursionError, ValueError, OverflowError) as error:
        reason = str(getattr(error, "strerror", None) or error)
        raise UserError(
            "`balance` must be max, a number or a JSON file of "
            f'{{"class": number}}, got {balance} ({reason}).'
        ) from None
    for label in wanted:
        if label not in counts:
            raise UserError(
                f"{balance} names the class {label}, but the dataset has no image to vary of it; "
                "leave it out, or make some images with `synfer-rt sample`."
            )
    return _checked(counts, wanted)


def _checked(counts: Mapping[str, int], wanted: Mapping[str, int]) -> dict[str, int]:
    goal = {label: max(count, wanted.get(label, 0)) for label, count in counts.items()}
    added = sum(goal.values()) - sum(counts.values())
    if added > MOST_ADDITIONS:
        raise UserError(f"`balance` must ask for at most {MOST_ADDITIONS} additions, got {added}.")
    return goal


def additions(counts: Mapping[str, int], wanted: Mapping[str, int]) -> tuple[str, ...]:
    """The labels of the images to add, the classes taking turns."""
    return tuple(next_round(counts, wanted, sum(wanted.values())))
