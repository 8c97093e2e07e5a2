"""Columns of votes: a column for each class, with the number of people who chose it."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from synfer_rt.data.datasets.labels.label import Label
from synfer_rt.data.datasets.tables.cells import text
from synfer_rt.data.datasets.tables.column_names import ABSTENTIONS, key
from synfer_rt.vocabulary.expressions import expression

_AROUND_CLASS = re.compile(
    r"^(?:is|label|emotion|expression|class|votes?|n|num|count|prob|p|score)[\W_]+"
    r"|[\W_]+(?:votes?|count|prob|probability|score)$"
)
"""What the name of a column may have beside the class."""
_FEWEST_CLASSES = 3


def vote_columns(names: Sequence[str], values: Mapping[str, set[str]]) -> dict[str, str | None]:
    """The columns of votes by their keys, with the expression of each; None for an abstention.

    They have the names of expressions and hold numbers. Labels that are one-hot count as one vote.
    There must be three expressions or more, each in one column; else there are no votes.
    """
    votes: dict[str, str | None] = {}
    for name in names:
        cells = values.get(key(name))
        if not cells or any(_number(cell) is None for cell in cells):
            continue
        word = name.strip().lower()
        inner = _AROUND_CLASS.sub("", word, count=1)
        found = expression(word, expected=False) or expression(inner, expected=False)
        if found or key(name) in ABSTENTIONS:
            votes[key(name)] = found
    classes = [found for found in votes.values() if found]
    return votes if len(classes) == len(set(classes)) >= _FEWEST_CLASSES else {}


def _number(cell: str) -> float | None:
    """A number of votes. True and False, as pandas writes one-hot labels, are 1 and 0."""
    cell = {"": "0", "true": "1", "false": "0"}.get(cell.lower(), cell)
    try:
        number = float(cell)
    except ValueError:
        return None
    return number if 0 <= number < float("inf") else None


def majority(cells: Mapping[str, object], classes: Mapping[str, str | None]) -> Label:
    """The class with most votes; no label for a tie, and if most votes are abstentions.

    `cells` are the votes and `classes` the expressions, by the keys of the columns.
    """
    votes: dict[str, float] = {}
    for name, cell in cells.items():
        number = _number(text(cell))
        if number is None:
            return Label(None, f"its {text(cell)} is not a number of votes for {name}", text(cell))
        votes[name] = number
    most = max(votes.values())
    if most == 0:
        return Label(None, "no class has a vote")
    first = [name for name, number in votes.items() if number == most]
    written = ", ".join(f"{name} {number:g}" for name, number in votes.items() if number)
    if len(first) > 1:
        named = " and ".join(classes[name] or name for name in first)
        return Label(None, f"its votes tie: {named} have {most:g} each", written)
    if classes[first[0]] is None:
        return Label(None, f"most of its votes are for {first[0]}", written)
    return Label(classes[first[0]], None, written)
