"""Whether the label numbers of a dataset can be those of their label scheme.

A single number does not show it. A number past the last class does, and so may a missing 0.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace

from synfer_rt.data.datasets.items import Item
from synfer_rt.data.datasets.labels.label import number_of
from synfer_rt.errors import UserError
from synfer_rt.vocabulary import label_schemes

_WITH_OTHER_LISTS = ("raf-db", "raf-db-from-0")
"""Schemes whose dataset has a second list of the same form: RAF-DB's compound expressions."""


def other_list(scheme: str, numbers: Collection[int]) -> str | None:
    """Why a list with these numbers is not a list of its scheme's classes; None if it may be."""
    last = label_schemes.FIRST_NUMBER.get(scheme, 0) + len(label_schemes.scheme(scheme)) - 1
    if scheme not in _WITH_OTHER_LISTS or max(numbers, default=0) <= last:
        return None
    return (
        f"its list has numbers up to {max(numbers)}, so it is not RAF-DB's list of the seven basic "
        'expressions; for that of the compound ones, use `label_scheme="raf-db-compound"`'
    )


def check_numbers(items: Sequence[Item], of_format: bool) -> list[Item]:
    """The items of a dataset, without labels if their numbers are those of another list.

    `of_format` says that the dataset's format gives the scheme, not the user. Raises UserError if
    the numbers seem to count from 1 and those of the scheme from 0, or the other way round.
    """
    by_scheme: dict[str, set[int]] = {}
    for item in items:
        found = number_of(item.written, item.scheme)
        if found is not None and item.scheme is not None:
            by_scheme.setdefault(item.scheme, set()).add(found)
    for scheme, numbers in by_scheme.items():
        _check_first(scheme, numbers, of_format)
    problems = {scheme: other_list(scheme, numbers) for scheme, numbers in by_scheme.items()}
    return [
        replace(item, label=None, problem=why)
        if item.scheme is not None and (why := problems.get(item.scheme)) is not None
        else item
        for item in items
    ]


def _check_first(scheme: str, numbers: Collection[int], of_format: bool) -> None:
    first, classes = label_schemes.FIRST_NUMBER.get(scheme, 0), label_schemes.scheme(scheme)
    if first == 1 and 0 in numbers:
        other = f"{scheme}-from-0"
        names = other if other in label_schemes.SCHEMES else label_schemes.listed(classes)
        raise UserError(
            f"The dataset has the label 0, but {scheme} counts from 1. If its labels count from 0, "
            f'use `label_scheme="{names}"`.'
        )
    if first == 1 or of_format or 0 in numbers or len(classes) not in numbers:
        return
    # If the scheme's own dataset uses that number, too, only all numbers from 1 are a sign.
    row = set(range(1, len(classes) + 1))
    if scheme not in label_schemes.NON_EXPRESSIONS or (row <= set(numbers) and max(numbers) in row):
        raise UserError(
            f"The dataset has the label {len(classes)} and no label 0, as if its labels counted "
            f"from 1, but {scheme} counts from 0. List the dataset's classes in their order, as "
            'in `label_scheme="-,happy,sad"`; - holds the place of 0.'
        )
