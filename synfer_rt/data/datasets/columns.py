"""What the columns of a table, or the keys of records, hold: image, label, split, face box.

Columns go by keys: their names in lower case, letters and digits alone, so that `Image name`,
`image_name` and `imageName` are one.
"""

from __future__ import annotations

import re
import reprlib
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from synfer_rt.data.datasets.boxes import Box, box_columns, box_of
from synfer_rt.data.datasets.items import IMAGES, UNLABELLED, Label, label_of
from synfer_rt.data.datasets.splits import are_splits, split_of
from synfer_rt.vocabulary.label_schemes import expression

AFFECTNET_COLUMN = "subdirectoryfilepath"
"""The key of what AffectNet's CSV files call the image; no other dataset's tables do."""
PIXELS = "pixels"
"""The key of FER2013's column of grey values."""
PIXELS_ELSEWHERE = "its column pixels is read from CSV files alone; save it as CSV"
"""Why images are not read from a table of another kind."""

_FILES = (
    "filename", AFFECTNET_COLUMN, "filepath", "imagepath", "imgpath", "path", "pth", "imagename",
    "imgname", "image", "img", "file", "imagefile", "imgfile", "imagefilename", "fname", "images",
    "picture", "photo", "relativepath", "relpath", "facepath", "filenames",
)  # fmt: skip
IMAGE_COLUMNS = (
    "image", "img", "images", "imagebytes", "imgbytes", "bytes", "picture", "photo", "face", "jpg",
    "jpeg", "png", "content", "data",
)  # fmt: skip
"""Keys of what holds image files, the likeliest first."""
_NAMES = ("imageid", "imgid", "id", "name", "stem", "key")
"""Keys of the image only where the cells are names of files that are there."""
_LABELS = (
    "label", "labels", "expression", "emotion", "class", "exp", "expressions", "emotions",
    "labelname", "emotionname", "expressionname", "classname", "labeltext", "emotionlabel",
    "expressionlabel", "classlabel", "facialexpression", "category", "target", "expr", "emo",
    "groundtruth", "gt", "annotation", "emotionclass", "expressionclass", "labelid", "classid",
    "emotionid", "expressionid", "categoryid", "classindex", "labelindex", "classidx", "y",
    "emotioncode", "expressioncode", "labelcode", "truelabel",
)  # fmt: skip
_SPLITS = (
    "split", "usage", "subset", "partition", "istrain", "istraining", "istrainingimage", "istest",
)  # fmt: skip
"""Their values are splits, whatever they say; those of other columns where all are such words."""
_ABSTAINING = (
    "unknown", "nf", "none", "other", "others", "uncertain", "unsure", "notface", "noface",
)  # fmt: skip
"""Columns of votes for no expression; FER+ has unknown and NF, not a face."""
_BOXES = ("bbox", "box", "facebox", "facebbox", "boundingbox", "faceboundingbox", "facerect")
"""Whole boxes in a cell: nothing says whether it ends with a size or with a corner."""
_WHOLE = "(0, 0, 48, 48)"
"""The box of each picture of FER2013 in FER+'s tables: all of it."""
_AROUND_CLASS = re.compile(
    r"^(?:is|label|emotion|expression|class|votes?|n|num|count|prob|p|score)[\W_]+"
    r"|[\W_]+(?:votes?|count|prob|probability|score)$"
)
SURVEYED = 20_000
"""Rows of a table, the first ones, that tell what its columns are."""
_DISTINCT = 100
_FEWEST_CLASSES = 3


def key(name: Any) -> str:
    """The key of a column's name."""
    return re.sub(r"[\W_]+", "", str(name).lower())


def by_key(row: Mapping[str, Any]) -> dict[str, Any]:
    """A JSON object by its keys; a label or box in an object of it is its own, if it has none."""
    cells = {key(name): cell for name, cell in row.items()}
    for inner in [cell for cell in cells.values() if isinstance(cell, dict)]:
        named = {key(name): cell for name, cell in inner.items()}
        for name in (name for name in (*_LABELS, *_BOXES) if name in named):
            cells.setdefault(name, named[name])
    return cells


def text(value: Any) -> str:
    """A cell as text without spaces around it; empty for what is none, as a list of several."""
    if isinstance(value, str):
        return value.strip()
    if isinstance(value, (list, tuple)) and len(value) == 1:
        value = value[0]
    if value is None or isinstance(value, (list, tuple, dict, bytes)) or value != value:
        return ""
    return str(value).strip()


def _label(cell: Any, label_scheme: Any) -> Label:
    written = _several(cell)
    if not written:
        return label_of(text(cell), label_scheme)
    return Label(None, f"its label is a list of several, {reprlib.repr(written)}", written)


def _several(cell: Any) -> str:
    """A list of several values as text; empty for any other cell."""
    several = isinstance(cell, (list, tuple)) and len(cell) > 1
    return ", ".join(map(str, cell)) if several else ""


def is_image_name(cell: str) -> bool:
    """Whether a cell ends as the name of an image file does."""
    dot = cell.rfind(".")
    return dot > 0 and cell[dot:].partition("#")[0].lower() in IMAGES


def names_images(keys: Collection[str]) -> bool:
    """Whether these are keys of a table of images: of a column of their names, or of PIXELS."""
    some = set(keys)
    by_id = not some.isdisjoint(_NAMES) and not some.isdisjoint(_LABELS)
    return by_id or PIXELS in some or not some.isdisjoint(_FILES)


def survey(rows: Iterable[Mapping[str, Any]]) -> dict[str, set[str]]:
    """The first distinct values of each column, without empty cells, by its key.

    After many rows only columns that were empty until then are looked at.
    """
    values: dict[str, set[str]] = {}
    for number, row in enumerate(rows):
        for name, cell in row.items():
            seen = values.setdefault(name, set())
            full = len(seen) >= _DISTINCT or (number >= SURVEYED and seen)
            if not full and (value := text(cell) or (name in _LABELS and _several(cell))):
                seen.add(value)
    return values


@dataclass(frozen=True)
class Columns:
    """Which columns of a table hold what, by their keys.

    Of `files` and `labels` each column could be meant: of labels the first counts, and a row where
    another of them says otherwise has none. `votes` are columns of numbers, each with the class
    that is voted for, or None. `problem` says why no label is found though there may be one, and
    `unused_box` is a column of face boxes of which nothing says how they count.
    """

    names: tuple[str, ...]
    files: tuple[str, ...] = ()
    labels: tuple[str, ...] = ()
    votes: Mapping[str, str | None] = field(default_factory=dict)
    split: str | None = None
    box: tuple[tuple[str, ...], bool] | None = None
    problem: str | None = None
    unused_box: str | None = None

    def label(self, row: Mapping[str, Any], label_scheme: str | None) -> Label:
        """The label of a row; UNLABELLED where its cell is empty.

        What `synfer-rt label` did not understand does not come to mean something by its vote.
        """
        if problem := text(row.get("labelproblem")):
            return Label(None, problem, text(row.get("writtenlabel")))
        scheme = row.get("labelscheme") or label_scheme
        if self.votes:
            return majority({name: row.get(name) for name in self.votes}, self.votes)
        found = {name: _label(row.get(name), scheme) for name in self.labels}
        said = {name: label for name, label in found.items() if label != UNLABELLED}
        if not said:
            return UNLABELLED
        first, label = next(iter(said.items()))
        for name, other in said.items():
            if None not in (other.name, label.name) and other.name != label.name:
                why = f"its column {first} says {label.name}, and its column {name} {other.name}"
                return Label(None, f"{why}; take one of them out", label.written)
        return label

    def split_of(self, row: Mapping[str, Any]) -> str | None:
        """The split that a row says: train, val, test, or another word of its column."""
        cell = text(row.get(self.split)) if self.split else ""
        return split_of(cell) or cell.lower() or None

    def box_of(self, row: Mapping[str, Any]) -> Box | str | None:
        """The face box of a row, None where it has none, or why it makes none."""
        return box_of(row, self.box) if self.box else None


def columns_of(
    names: Sequence[str],
    values: Mapping[str, set[str]],
    stems: Iterable[str] = (),
    header: bool = True,
) -> Columns:
    """What the columns called `names`, with these values (see `survey`), hold.

    Names count first, then what the cells are. `stems` are those of the dataset's files. Without a
    `header` the names say nothing.
    """
    box = box_columns(values)
    files = _file_columns(values, frozenset(stems))
    split = _split_column(values)
    left = {name: cells for name, cells in values.items() if name not in (*files, split)}
    left = {name: cells for name, cells in left.items() if not (box and name in box[0])}
    labels = [name for name in _LABELS if left.get(name)]
    words = [name for name in labels if any(map(expression, left[name]))]
    votes = {} if words else vote_columns(names, left)
    if not votes:
        labels = words or labels or _columns_of_words(left)
    if not labels and not votes and not header and len(left) == 1:
        labels = list(left)
    problem = None
    if not labels and not votes and left:
        problem = "none of its columns " + ", ".join(names) + " is known to hold labels"
        problem += "; call one label" if header else "; write a header with file_name and label"
    boxes = (name for name in _BOXES if name in values and values[name] != {_WHOLE} and not box)
    return Columns(
        tuple(names),
        files,
        tuple(() if votes else labels),
        votes,
        split,
        box,
        problem,
        next(boxes, None),
    )


def _file_columns(values: Mapping[str, set[str]], stems: frozenset[str]) -> tuple[str, ...]:
    named = [name for name in _FILES if values.get(name)]
    like = [name for name, cells in values.items() if cells and all(map(is_image_name, cells))]
    both = tuple(name for name in named if name in like)
    if both or named:
        return both or tuple(named)
    if len(like) == 1:
        return tuple(like)
    present = (name for name in _NAMES if values.get(name) and values[name] <= stems)
    return tuple(present)[:1]


def _split_column(values: Mapping[str, set[str]]) -> str | None:
    for name in _SPLITS:
        if values.get(name):
            return name
    return next((name for name, cells in values.items() if are_splits(cells)), None)


def _columns_of_words(values: Mapping[str, set[str]]) -> list[str]:
    """The column whose cells all name expressions, where there is one alone."""

    def certain(cell: str) -> bool:
        return expression(cell, due=False) is not None

    found = [name for name, cells in values.items() if cells and all(map(certain, cells))]
    return found if len(found) == 1 else []


def vote_columns(names: Sequence[str], values: Mapping[str, set[str]]) -> dict[str, str | None]:
    """The columns of numbers that are called as expressions are, and the class of each.

    One-hot labels are votes of one. At least three classes are needed, each once.
    """
    votes: dict[str, str | None] = {}
    for name in names:
        cells = values.get(key(name))
        if not cells or any(_votes(cell) is None for cell in cells):
            continue
        word = name.strip().lower()
        inner = _AROUND_CLASS.sub("", word, count=1)
        found = expression(word, due=False) or expression(inner, due=False)
        if found or key(name) in _ABSTAINING:
            votes[key(name)] = found
    classes = [found for found in votes.values() if found]
    return votes if len(classes) == len(set(classes)) >= _FEWEST_CLASSES else {}


def _votes(cell: str) -> float | None:
    """A number of votes; True and False, as pandas writes one-hot labels, are 1 and 0."""
    cell = {"": "0", "true": "1", "false": "0"}.get(cell.lower(), cell)
    try:
        number = float(cell)
    except ValueError:
        return None
    return number if 0 <= number < float("inf") else None


def majority(counts: Mapping[str, Any], classes: Mapping[str, str | None]) -> Label:
    """The class with most votes; none for a tie, or where most are for no expression."""
    numbers: dict[str, float] = {}
    for name, count in counts.items():
        number = _votes(text(count))
        if number is None:
            return Label(None, f"its {text(count)} is no number of votes for {name}", text(count))
        numbers[name] = number
    most = max(numbers.values())
    if most == 0:
        return Label(None, "no class has a vote")
    first = [name for name, number in numbers.items() if number == most]
    written = ", ".join(f"{name} {number:g}" for name, number in numbers.items() if number)
    if len(first) > 1:
        named = " and ".join(classes[name] or name for name in first)
        return Label(None, f"its votes tie: {named} have {most:g} each", written)
    if classes[first[0]] is None:
        return Label(None, f"most of its votes are for {first[0]}", written)
    return Label(classes[first[0]], None, written)
