"""Tables of published datasets that have no header: they are known by what their cells hold."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

Rows = Sequence[Sequence[str]]


@dataclass(frozen=True)
class Published:
    """The table of a published dataset: the names of its columns and the scheme of its numbers.

    `is_it` tests the first rows of a file, all of as many cells as there are columns.
    """

    names: tuple[str, ...]
    is_it: Callable[[Path, str, Rows], bool]
    scheme: str | None = None


def published(file: Path, separator: str, rows: Rows) -> Published | None:
    """The published table that these first rows of `file` are of, if any."""
    for table in _PUBLISHED:
        if len(rows[0]) == len(table.names) and table.is_it(file, separator, rows):
            return table
    return None


def _is_fer_plus(_file: Path, _separator: str, rows: Rows) -> bool:
    """Whether rows are an image, a box and ten numbers of votes."""
    return all(
        re.fullmatch(r"\(\d+(, ?\d+){3}\)", row[1]) and all(cell.isdigit() for cell in row[2:])
        for row in rows
    )


def _is_affectnet(_file: Path, _separator: str, rows: Rows) -> bool:
    """Whether rows are an image, a box, landmarks between semicolons, a class and two numbers."""
    try:
        numbers = [[*map(int, row[1:5]), int(row[6]), *map(float, row[7:])] for row in rows]
    except ValueError:
        return False
    return all(";" in row[5] for row in rows) and all(0 <= row[4] <= 10 for row in numbers)


def _is_expw(file: Path, separator: str, rows: Rows) -> bool:
    """Whether rows are an image, a face's number, its box, a confidence and one of 7 classes.

    In a file that does not have the dataset's name for it, the numbers must make boxes, too.
    """
    try:
        numbers = [[*map(int, row[1:6]), float(row[6]), int(row[7])] for row in rows]
    except ValueError:
        return False
    boxes = all(left < right and top < bottom for _, top, left, right, bottom, _, _ in numbers)
    named = file.name.lower() == "label.lst"
    return separator == " " and (named or boxes) and all(0 <= row[-1] < 7 for row in numbers)


_PUBLISHED = (
    Published(  # label.csv of FER+ (Barsoum et al. 2016)
        (
            "image name", "face box", "neutral", "happiness", "surprise", "sadness", "anger",
            "disgust", "fear", "contempt", "unknown", "NF",
        ),
        _is_fer_plus,
    ),
    Published(  # validation.csv of AffectNet (Mollahosseini et al. 2017)
        (
            "subDirectory_filePath", "face_x", "face_y", "face_width", "face_height",
            "facial_landmarks", "expression", "valence", "arousal",
        ),
        _is_affectnet,
    ),
    Published(  # label.lst of ExpW (Zhang et al. 2017)
        (
            "image name", "face id", "face box top", "face box left", "face box right",
            "face box bottom", "confidence", "expression label",
        ),
        _is_expw,
        "fer2013-csv",
    ),
)  # fmt: skip
