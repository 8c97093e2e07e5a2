"""What the figures count: the records of a source as arrays of codes and numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np

from synfer_rt.records import ORIGINAL
from synfer_rt.report.columns import Column, Columns
from synfer_rt.report.prompt_attributes import NOT_SAID, WORDS, attributes_of

NONE = -1
"""The code of an image that has no value."""


@dataclass(frozen=True)
class Coded:
    """A word for each image: `codes` int64 [N] are places in `words`, NONE for no word."""

    codes: np.ndarray = field(repr=False)
    words: tuple[str, ...]

    def count(self, among: np.ndarray) -> np.ndarray:
        """How many images have each word, of those that `among`, bool [N], selects: int64."""
        codes = self.codes[among & (self.codes != NONE)]
        return np.bincount(codes, minlength=len(self.words))


@dataclass(frozen=True)
class Facts:
    """The N images of a source.

    - `requested`, `label` and `voted` are coded by the same `classes`: the requested label (of a
      table the dataset's), the label to train with, and the class that the vote finds most likely.
    - `readable` has an image and a label; `judged` was voted on and had a label or a share to be
      accepted by; `accepted` of these are kept. All bool [N].
    - `confidence` float64 [N] is the vote's probability of `label`, NaN where nothing voted.
    - `aus` float64 [N, units] has intensities in [0, 1], NaN where none is known.
    - `attributes` are those that the prompts name.
    """

    classes: tuple[str, ...]
    requested: Coded
    label: Coded
    voted: Coded
    readable: np.ndarray = field(repr=False)
    judged: np.ndarray = field(repr=False)
    accepted: np.ndarray = field(repr=False)
    rectified: np.ndarray = field(repr=False)
    confidence: np.ndarray = field(repr=False)
    units: tuple[str, ...]
    aus: np.ndarray = field(repr=False)
    attributes: Mapping[str, Coded] = field(repr=False)

    @property
    def count(self) -> int:
        """N."""
        return len(self.judged)

    @cached_property
    def hits(self) -> tuple[int, int]:
        """How many images are accepted, and how many could be."""
        return int((self.accepted & self.judged).sum()), int(self.judged.sum())

    def hits_of(self, coded: Coded) -> list[tuple[int, int]]:
        """The same for the images that have each word."""
        of = coded.count(self.judged)
        accepted = coded.count(self.judged & self.accepted)
        return [(int(x), int(n)) for x, n in zip(accepted, of, strict=True)]


def facts_of(columns: Columns, settings: Mapping[str, Any]) -> Facts:
    """The facts of records with these settings."""
    names = columns.names("probabilities")
    labels = [_words(columns, name) for name in ("requested_label", "given_label", "label")]
    found = {words[code] for codes, words in labels for code in map(int, np.unique(codes))}
    known: Sequence[Any] = settings.get("classes", ())
    classes = tuple(dict.fromkeys([*map(str, known), *names, *sorted(found - {""})]))
    probabilities = columns.table("probabilities")
    voted_on = (probabilities > 0).any(1) if names else np.zeros(columns.count, bool)
    best = probabilities.argmax(1) if names else np.zeros(columns.count, np.int64)
    places = np.array([classes.index(name) for name in names] or [NONE])
    readable = ~_truth(columns, "error")
    requested = labels[0] if columns.get("requested_label") is not None else labels[1]
    label = _coded(labels[2], classes)
    originals = np.zeros(columns.count, bool)
    if (origin := columns.get("origin")) is not None:
        originals = _is(origin, ORIGINAL)
    asked = _truth(columns, "asked") if columns.get("asked") is not None else True
    return Facts(
        classes,
        _coded(requested, classes),
        label,
        Coded(np.where(voted_on & readable, places[best], NONE), classes),
        readable,
        voted_on & readable & asked & ~originals,
        _truth(columns, "accepted"),
        _truth(columns, "rectified"),
        _confidence(label, places, probabilities, voted_on & readable),
        *_units(columns, originals | ~readable),
        _attributes(columns),
    )


def _words(columns: Columns, name: str) -> tuple[np.ndarray, Sequence[str]]:
    """The codes of a field of words, and the words; none if there is no such field."""
    column = columns.get(name)
    if column is None:
        return np.zeros(columns.count, np.int64), [""]
    codes, values = column.words()
    return codes, [value if isinstance(value, str) else "" for value in values]


def _coded(found: tuple[np.ndarray, Sequence[str]], classes: tuple[str, ...]) -> Coded:
    codes, words = found
    place = {word: i for i, word in enumerate(classes)}
    return Coded(np.array([place.get(word, NONE) for word in words])[codes], classes)


def _truth(columns: Columns, name: str) -> np.ndarray:
    """Which images have a true or filled-in value in a field, bool [N]."""
    column = columns.get(name)
    if column is None:
        return np.zeros(columns.count, bool)
    codes, values = column.words()
    return np.array([bool(value) for value in values] or [False])[codes]


def _is(column: Column, word: str) -> np.ndarray:
    codes, values = column.words()
    return np.array([value == word for value in values] or [False])[codes]


def _confidence(
    label: Coded, places: np.ndarray, probabilities: np.ndarray, voted_on: np.ndarray
) -> np.ndarray:
    """The vote's probability of the label of each image."""
    column = {int(place): i for i, place in enumerate(places)}
    of_class = np.array([column.get(i, NONE) for i in range(len(label.words))] or [NONE])
    columns = of_class[label.codes]
    known = voted_on & (label.codes != NONE) & (columns != NONE)
    found = np.full(len(known), np.nan)
    rows = np.flatnonzero(known)
    found[rows] = probabilities[rows, columns[rows]]
    return found


def _units(columns: Columns, without: np.ndarray) -> tuple[tuple[str, ...], np.ndarray]:
    """The action units that any image has, and their intensities; none of images `without`."""
    names, aus = columns.names("aus"), columns.table("aus").copy()
    aus[without] = np.nan
    aus[aus < 0] = np.nan
    some = np.flatnonzero(np.nan_to_num(aus).sum(0))
    return tuple(names[i] for i in some), aus[:, some]


def _attributes(columns: Columns) -> dict[str, Coded]:
    """The attributes that the prompts name, by WORDS; only those that some prompt names."""
    codes, prompts = _words(columns, "prompt")
    said = [attributes_of(prompt) for prompt in prompts]
    found: dict[str, Coded] = {}
    for name, words in WORDS.items():
        place = {word: i for i, word in enumerate(words)} | {NOT_SAID: NONE}
        of_prompt = np.array([place[one[name]] for one in said] or [NONE])
        if (of_prompt != NONE).any():
            found[name] = Coded(of_prompt[codes], words)
    return found
