"""What the numbers of a whole dataset give away: whether they are those of their label scheme.

One number alone does not tell; that some are beyond a scheme's classes, or that none is 0, does.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace

from synfer_rt.data.datasets.items import Item
from synfer_rt.data.datasets.labels.label import number_of
from synfer_rt.errors import UserError
from synfer_rt.vocabulary import label_schemes

_WITH_OTHER_LISTS = ("raf-db", "raf-db-from-0")
"""Schemes whose dataset has another list of the same form: RAF-DB's eleven compound expressions."""


def other_list(scheme: str, numbers: Collection[int]) -> str | None:
    """Why a list with these numbers is not one of its scheme's classes, or None if it may be."""
    last = label_schemes.FIRST.get(scheme, 0) + len(label_schemes.scheme(scheme)) - 1
    if scheme not in _WITH_OTHER_LISTS or max(numbers, default=0) <= last:
        return None
    return (
        f"its list has numbers up to {max(numbers)}, so it is not that of RAF-DB's seven basic "
        "expressions"
    )


def check_numbers(items: Sequence[Item], own_layout: bool) -> list[Item]:
    """The items of a dataset, without the labels of a list that is not of its scheme.

    `own_layout` says that the scheme is the one of the dataset's own layout, not the user's word.
    Raises UserError for numbers that begin elsewhere than those of their scheme.
    """
    by_scheme: dict[str, set[int]] = {}
    for item in items:
        found = number_of(item.written, item.scheme)
        if found is not None and item.scheme is not None:
            by_scheme.setdefault(item.scheme, set()).add(found)
    for scheme, numbers in by_scheme.items():
        _check_first(scheme, numbers, own_layout)
    problems = {scheme: other_list(scheme, numbers) for scheme, numbers in by_scheme.items()}
    return [
        replace(item, label=None, problem=why)
        if item.scheme is not None and (why := problems.get(item.scheme)) is not None
        else item
        for item in items
    ]


def _check_first(scheme: str, numbers: Collection[int], own_layout: bool) -> None:
    first, classes = label_schemes.FIRST.get(scheme, 0), label_schemes.scheme(scheme)
    if first == 1 and 0 in numbers:
        other = f"{scheme}-from-0"
        names = other if other in label_schemes.SCHEMES else ",".join(classes)
        raise UserError(
            f"The dataset has the label 0, and {scheme} counts from 1; for numbers from 0 write "
            f"--label-scheme {names}."
        )
    if first == 1 or own_layout or 0 in numbers or len(classes) not in numbers:
        return
    # Where the scheme's own dataset has that number too, only a whole row of them tells.
    row = set(range(1, len(classes) + 1))
    if scheme not in label_schemes.NO_EXPRESSION or (row <= set(numbers) and max(numbers) in row):
        raise UserError(
            f"The dataset's labels have the number {len(classes)} and no 0, as if they counted "
            f"from 1, and {scheme} counts from 0; write the dataset's own order as "
            "--label-scheme -,NAME,NAME,…, where - stands for 0."
        )
