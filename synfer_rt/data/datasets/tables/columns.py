"""What columns of a table, or keys of JSON objects, hold: image, label, split, box, description."""

from __future__ import annotations

import reprlib
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from synfer_rt.data.datasets.items import Description
from synfer_rt.data.datasets.labels.label import UNLABELLED, Label, label_of
from synfer_rt.data.datasets.labels.splits import are_splits, split_of
from synfer_rt.data.datasets.tables.boxes import Box, BoxColumns, box_columns, box_of
from synfer_rt.data.datasets.tables.cells import Row, is_image_name, several, text
from synfer_rt.data.datasets.tables.column_names import (
    BOXES,
    CAPTIONS,
    FILES,
    IDENTIFIERS,
    LABELS,
    PERSONS,
    PIXELS,
    SPLITS,
)
from synfer_rt.data.datasets.tables.unit_columns import UnitColumns, unit_columns
from synfer_rt.data.datasets.tables.votes import majority, vote_columns
from synfer_rt.vocabulary.expressions import expression

_WHOLE = "(0, 0, 48, 48)"
"""The face box of every image of FER2013 in FER+'s tables: the whole image."""


def _no_votes() -> Mapping[str, str | None]:
    return {}


@dataclass(frozen=True)
class Columns:
    """What the columns of a table hold; columns are written by their keys.

    `names` are the names of all columns as the table writes them. `files` and `labels` may be
    several columns: the first with a value counts, and a row whose labels contradict each other has
    none. `votes` are the columns of votes with the expression of each, None for an abstention.
    `problem` says why no column of labels is found, if the table has columns that may be one.
    `unused_box` is a column of face boxes that cannot be read without ambiguity. `person` is the
    column of who an image shows. `captions` are the columns of texts about images, of which the
    first with a value counts, and `units` those of action units.
    """

    names: tuple[str, ...]
    files: tuple[str, ...] = ()
    labels: tuple[str, ...] = ()
    votes: Mapping[str, str | None] = field(default_factory=_no_votes)
    split: str | None = None
    box: BoxColumns | None = None
    problem: str | None = None
    unused_box: str | None = None
    person: str | None = None
    captions: tuple[str, ...] = ()
    units: UnitColumns | None = None

    def label(self, row: Row, label_scheme: str | None) -> Label:
        """The label of a row; UNLABELLED if its cell is empty.

        A label that `synfer-rt label` did not understand stays so, whatever its vote was.
        """
        if problem := text(row.get("labelproblem")):
            return Label(None, problem, text(row.get("writtenlabel")))
        scheme = row.get("labelscheme") or label_scheme
        if self.votes:
            return majority({name: row.get(name) for name in self.votes}, self.votes)
        found = ((name, _label(row.get(name), scheme)) for name in self.labels)
        first, counts = None, UNLABELLED
        for name, label in found:
            if first is None:
                if label != UNLABELLED:
                    first, counts = name, label
            elif None not in (label.name, counts.name) and label.name != counts.name:
                why = f"its column {first} says {counts.name}, but its column {name} {label.name}"
                return Label(None, f"{why}; remove the wrong column", counts.written)
        return counts

    def split_of(self, row: Row) -> str | None:
        """The split that a row says: train, val, test, or another word of its column."""
        cell = text(row.get(self.split)) if self.split else ""
        return (split_of(cell) or cell.lower()) if cell else None

    def person_of(self, row: Row) -> str | None:
        """Who the image of a row shows, None if the row does not say."""
        return text(row.get(self.person)) or None if self.person else None

    def box_of(self, row: Row) -> Box | str | None:
        """The face box of a row, None if it has none, or what is wrong with it."""
        return box_of(row, self.box) if self.box else None

    def description(self, row: Row) -> Description:
        """What a row says of its image besides the label."""
        texts = (text(row.get(name)) for name in self.captions)
        units = None if self.units is None else self.units.of(row)
        return Description(next(filter(None, texts), None), units)


def _label(cell: object, label_scheme: object) -> Label:
    if not isinstance(cell, str) and (written := several(cell)):
        why = f"its label is a list of several values, {reprlib.repr(written)}"
        return Label(None, why, written)
    return label_of(text(cell), label_scheme)


def names_images(keys: Collection[str]) -> bool:
    """Whether columns of these keys name images, or hold them as numbers."""
    some = set(keys)
    by_identifier = not some.isdisjoint(IDENTIFIERS) and not some.isdisjoint(LABELS)
    return by_identifier or PIXELS in some or not some.isdisjoint(FILES)


def columns_of(
    names: Sequence[str],
    values: Mapping[str, set[str]],
    stems: Iterable[str] = (),
    header: bool = True,
) -> Columns:
    """What the columns with these names and values (see `survey`) hold.

    Names count first, then values. `stems` are the names of the dataset's files, with and without
    suffix. Without a `header`, the names say nothing.
    """
    box = box_columns(values)
    files = _file_columns(values, frozenset(stems))
    split = _split_column(values)
    taken = {*files, split, *(box.names if box else ())}
    left = {name: cells for name, cells in values.items() if name not in taken}
    labels, votes = _label_columns(names, left)
    if not labels and not votes and not header and len(left) == 1:
        labels = list(left)
    problem = _no_labels(names, header) if left and not labels and not votes else None
    boxes = (name for name in BOXES if name in values and values[name] != {_WHOLE} and not box)
    unused_box = next(boxes, None)
    used = {*files, *labels, *votes, split}
    person = next((name for name in PERSONS if values.get(name) and name not in used), None)
    captions = tuple(name for name in CAPTIONS if values.get(name) and name not in labels)
    units = unit_columns(values)
    return Columns(
        tuple(names),
        files,
        tuple(labels),
        votes,
        split,
        box,
        problem,
        unused_box,
        person,
        captions,
        units,
    )


def _file_columns(values: Mapping[str, set[str]], stems: frozenset[str]) -> tuple[str, ...]:
    named = [name for name in FILES if values.get(name)]
    like = [name for name, cells in values.items() if cells and all(map(is_image_name, cells))]
    both = tuple(name for name in named if name in like)
    if both or named:
        return both or tuple(named)
    if len(like) == 1:
        return tuple(like)
    present = (name for name in IDENTIFIERS if values.get(name) and values[name] <= stems)
    return tuple(present)[:1]


def _split_column(values: Mapping[str, set[str]]) -> str | None:
    for name in SPLITS:
        if values.get(name):
            return name
    return next((name for name, cells in values.items() if are_splits(cells)), None)


def _label_columns(
    names: Sequence[str], values: Mapping[str, set[str]]
) -> tuple[list[str], Mapping[str, str | None]]:
    """The columns of labels, those of words before those of numbers; or else those of votes."""
    labels = [name for name in LABELS if values.get(name)]
    words = [name for name in labels if any(map(expression, values[name]))]
    if not words and (votes := vote_columns(names, values)):
        return [], votes
    return words or labels or _columns_of_words(values), {}


def _columns_of_words(values: Mapping[str, set[str]]) -> list[str]:
    """The column whose cells all name expressions, if there is exactly one."""

    def certain(cell: str) -> bool:
        return expression(cell, expected=False) is not None

    found = [name for name, cells in values.items() if cells and all(map(certain, cells))]
    return found if len(found) == 1 else []


def _no_labels(names: Sequence[str], header: bool) -> str:
    remedy = (
        "rename the column of labels to label"
        if header
        else "add a header with file_name and label"
    )
    return f"none of its columns {', '.join(names)} is known to hold labels; {remedy}"
