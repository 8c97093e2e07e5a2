"""How many images of a run each class has, and how many of them are accepted."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from synfer_rt.records import ORIGINAL, SAMPLED


@dataclass(frozen=True)
class ClassTally:
    """Images by class: requested, labelled, and accepted of those labelled.

    `originals` are those of `augment`'s input by their label; the other counts leave them out.
    `judged` tells whether annotators have judged any image.
    """

    requested: Counter[str]
    labelled: Counter[str]
    accepted: Counter[str]
    originals: Counter[str]
    judged: bool

    @property
    def images(self) -> int:
        """All images of the run."""
        return self.labelled.total() + self.originals.total()


def tally(records: Iterable[Mapping[str, Any]]) -> ClassTally:
    """Count the images of these records."""
    requested, labelled = Counter[str](), Counter[str]()
    accepted, originals = Counter[str](), Counter[str]()
    judged = False
    for record in records:
        label = record["label"]
        if record.get("origin", SAMPLED) == ORIGINAL:  # older releases' samples have none
            originals[label] += 1
            continue
        requested[record["requested_label"]] += 1
        labelled[label] += 1
        accepted[label] += bool(record["accepted"])
        judged = judged or any(record["probabilities"].values())
    return ClassTally(requested, labelled, accepted, originals, judged)
