"""What judges and AU readers find in the images of a run, and how many are accepted."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from synfer_rt.evaluation.confusion import accuracy, share
from synfer_rt.evaluation.paired_intensities import PairedIntensities
from synfer_rt.jobs.evaluation.networks import AUReader, Judge
from synfer_rt.records import Record
from synfer_rt.vocabulary.described_people import OF_A_PERSON, described_person

_NOT_NAMED = "(not named)"


class Judged:
    """What a judge reads in images, beside the labels that were requested and those written.

    Images whose requested class the judge does not know do not count.
    """

    def __init__(self, judge: Judge, classes: Sequence[str]) -> None:
        self.judge, self.classes = judge, tuple(classes)
        shape = len(self.classes), len(judge.classes)
        self._requested, self._written = np.zeros((2, *shape), np.int64)
        self._unknown = 0
        self.read: list[str] = []

    def add(self, images: np.ndarray, records: Sequence[Record]) -> None:
        """Judge images float32 [n, 3, H, W] of these records."""
        columns: list[int] = self.judge.read(images).tolist()
        for record, column in zip(records, columns, strict=True):
            self.read.append(self.judge.classes[column])
            requested, written = record["requested_label"], record.get("label")
            if requested in self.judge.classes:
                self._requested[self.classes.index(requested), column] += 1
            else:
                self._unknown += 1
            if record.get("accepted") and written in self.judge.classes and written in self.classes:
                self._written[self.classes.index(written), column] += 1

    def result(self) -> dict[str, Any]:
        """The judge's accuracy, and its confusion: images by requested and read class."""
        read = self.judge.classes
        return {
            "label_scheme": self.judge.scheme,
            "requested": accuracy(self._requested, self.classes, read),
            "accepted": accuracy(self._written, self.classes, read),
            "not_known": self._unknown,
            "confusion": {
                asked: dict(zip(read, row, strict=True))
                for asked, row in zip(self.classes, self._requested.tolist(), strict=True)
            },
        }


class UnitsRead:
    """What an AU reader reads in images, beside the action units that were requested."""

    def __init__(self, reader: AUReader, units: Sequence[str]) -> None:
        self.reader = reader
        self.units = tuple(name for name in reader.units if name in units)
        self._columns = [reader.units.index(name) for name in self.units]
        self._pairs = PairedIntensities(len(self.units))

    def add(self, images: np.ndarray, records: Sequence[Record]) -> None:
        """Read images float32 [n, 3, H, W] of these records."""
        asked = [[record["aus"].get(name, 0.0) for name in self.units] for record in records]
        read = self.reader.read(images)[:, self._columns]
        self._pairs.add(np.array(asked, np.float64), read)

    def result(self) -> dict[str, Any]:
        """Correlation and F1 of each unit, and their means over the units that have one."""
        units = {name: self._pairs.of(i) for i, name in enumerate(self.units)}

        def mean(key: str) -> float | None:
            known = [each[key] for each in units.values() if each[key] is not None]
            return float(np.mean(known)) if known else None

        return {
            "images": self._pairs.count,
            "mean_correlation": mean("correlation"),
            "mean_f1": mean("f1"),
            "units": units,
        }


class Groups:
    """How many images of each group are accepted, and how many labels were replaced.

    Groups are the requested classes and the attributes that prompts name: age, gender and ancestry
    of drawn sentences, and those of a plan by their words.
    """

    def __init__(self, settings: Mapping[str, Any]) -> None:
        self._sentences = not settings.get("template")
        planned: Mapping[str, Mapping[str, float]] = settings.get("attributes") or {}
        self._words: dict[str, dict[str, re.Pattern[str]]] = {
            name: {word: re.compile(rf"\b{re.escape(word)}\b") for word in words if word}
            for name, words in planned.items()
            if not (self._sentences and name in OF_A_PERSON)
        }
        self._images: dict[str, Counter[str]] = {"class": Counter()}
        self._accepted: dict[str, Counter[str]] = {"class": Counter()}
        self._rectified, self._judged, self._all = 0, False, 0

    def add(self, records: Sequence[Record]) -> None:
        """Count the images of these records."""
        for record in records:
            self._all += 1
            self._rectified += bool(record.get("rectified"))
            votes: Mapping[str, float] = record.get("probabilities") or {}
            self._judged |= any(votes.values())
            groups = {"class": record["requested_label"], **self._attributes(record)}
            for name, word in groups.items():
                self._images.setdefault(name, Counter())[word] += 1
                self._accepted.setdefault(name, Counter())[word] += bool(record.get("accepted"))

    def _attributes(self, record: Record) -> dict[str, str]:
        prompt, found = str(record.get("prompt", "")), dict[str, str]()
        if self._sentences:
            person = described_person(prompt) or {}
            found = {name: word or _NOT_NAMED for name, word in person.items()}
        for name, words in self._words.items():
            there = [word for word, pattern in words.items() if pattern.search(prompt)]
            # Of words within words, such as "brown" in "dark brown", the longest is meant.
            there = [w for w in there if not any(w != other and w in other for other in there)]
            found[name] = there[0] if len(there) == 1 else _NOT_NAMED
        return found

    def result(self) -> dict[str, Any] | None:
        """Shares with Wilson intervals; None where nobody judged the images."""
        if not self._judged:
            return None
        accepted = self._accepted["class"].total()
        return {
            **share(accepted, self._all),
            "rectified": self._rectified / self._all,
            "groups": {
                name: {word: share(self._accepted[name][word], of[word]) for word in _sorted(of)}
                for name, of in self._images.items()
            },
        }


def _sorted(words: Mapping[str, int]) -> list[str]:
    """Words in the order of OF_A_PERSON; others as they come, after these."""
    known = [word for words in OF_A_PERSON.values() for word in words]
    return sorted(words, key=lambda word: known.index(word) if word in known else len(known))
