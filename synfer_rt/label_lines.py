"""What `label` says of an image: the fields of a line of its table, in JSON or CSV.

The tables below are the one place of the fields. Blank lines, the columns of CSV and the tables of
the documentation follow from them (`python -m synfer_rt.label_lines` prints the latter).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from synfer_rt.bundle import Bundle
from synfer_rt.records import (
    ANNOTATOR,
    CLASS,
    UNIT,
    Field,
    Record,
    Scalar,
    Value,
    markdown,
    set_fields,
)
from synfer_rt.vocabulary.facs import OPENGRAPHAU_41

EVERY = READABLE, UNREADABLE = ("readable", "unreadable")
"""The kinds of lines: of an image that was read, and of one that could not be."""
NOT_READ = -1.0
"""The intensity of an action unit that nothing has read; 0 would say that the face lacks it."""

LINE = (
    Field("index", 0, EVERY, "the image's number in the dataset, from 0"),
    Field("file_name", "", EVERY, "the image's file, relative to the dataset"),
    Field("label", "", (READABLE,), "the vote's best class"),
    Field(
        "asked",
        False,
        (READABLE,),
        "whether there was anything to accept: a label of the dataset, a share or a threshold",
    ),
    Field("accepted", False, (READABLE,), "whether to keep the image"),
    Field("rectified", False, (READABLE,), "whether `label` replaces the dataset's label"),
    Field("given_label", "", (READABLE,), "the dataset's label; it counts as the wanted one"),
    Field("written_label", "", (READABLE,), "the dataset's label as the dataset writes it"),
    Field("label_problem", "", (READABLE,), "why the dataset's label cannot be checked"),
    Field("error", "", (UNREADABLE,), "why the image cannot be read"),
    Field("label_scheme", "", EVERY, "the order of the bundle's classes"),
    Field("bundle", "", EVERY, "the bundle's hash"),
    Field("backend", "", EVERY, "the backend that computed the votes"),
    Field("probabilities", 0.0, (READABLE,), "the vote's average distribution", each=CLASS),
    Field("votes", "", (READABLE,), "each annotator's best class", each=ANNOTATOR, prefix="vote."),
    Field(
        "aus",
        NOT_READ,
        (READABLE,),
        "intensities in 0 to 1; -1 if the bundle has no engine `au-reader`",
        each=UNIT,
    ),
)
"""The fields of a line of `label`'s table."""
LINE_DIMENSIONS = (
    Field("valence", 0.0, (READABLE,), "the mean of the classifiers that read it, -1 to 1"),
    Field("arousal", 0.0, (READABLE,), "the mean of the classifiers that read it, -1 to 1"),
)
"""Further fields, each where a classifier of the bundle reads it."""
LINE_SETS = set_fields((READABLE,))
"""Further fields of lines that are made with a calibration."""
ANY_LINE = (*LINE, *LINE_DIMENSIONS, *LINE_SETS)
"""All fields that a line may have, in their order."""


def blank_line(
    bundle: Bundle, annotators: Sequence[str], backend: str, calibrated: bool = False
) -> Record:
    """A line of empty values, with all fields in their order, but for what is equal in all lines.

    That is the bundle's hash and label scheme, and the backend. Lines of a `calibrated` job have
    label sets.
    """
    units = bundle.au_names or OPENGRAPHAU_41
    names = {CLASS: bundle.classes, UNIT: units, ANNOTATOR: annotators}
    further = [field for field in LINE_DIMENSIONS if field.name in bundle.dimensions]
    further += LINE_SETS if calibrated else ()
    line = {field.name: field.blank(names) for field in (*LINE, *further)}
    return line | {
        "label_scheme": bundle.label_scheme,
        "bundle": bundle.bundle_hash,
        "backend": backend,
    }


def cells(line: Mapping[str, Any]) -> Record:
    """A line of `label` as the row of a CSV file: a column for each class, vote and action unit."""
    row: Record = {}
    for field in ANY_LINE:
        if field.name not in line:
            continue
        if field.each:
            row |= {field.prefix + name: value for name, value in line[field.name].items()}
        else:
            row[field.name] = line[field.name]
    return row


def from_cells(row: Mapping[str, str], form: Mapping[str, Value]) -> Record:
    """The line of `label` that `cells` made a row of, if `form` is its blank line."""
    line: Record = {}
    for field in ANY_LINE:
        if field.name not in form:
            continue
        empty = form[field.name]
        if isinstance(empty, dict):
            line[field.name] = {
                name: _read(row[field.prefix + name], part) for name, part in empty.items()
            }
        else:
            line[field.name] = _read(row[field.name], empty)
    return line


def _read(text: str, empty: Scalar) -> Scalar:
    """A cell's value, of the type that `empty` has."""
    return text == "True" if isinstance(empty, bool) else type(empty)(text)


if __name__ == "__main__":
    print(markdown(LINE, EVERY), markdown((*LINE_DIMENSIONS, *LINE_SETS), EVERY), sep="\n", end="")
