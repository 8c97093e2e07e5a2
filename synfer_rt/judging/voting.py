"""The vote of several annotators, by pure functions on arrays.

FERAnno and any number of classifiers vote (He et al., SynFER, arXiv 2410.09865, section 3.4).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from synfer_rt.judging.calibration import Calibrated
from synfer_rt.judging.rounding import DECIMALS
from synfer_rt.judging.temperature import tempered
from synfer_rt.vocabulary import label_schemes


@dataclass(frozen=True)
class Opinion:
    """What one annotator says: `probabilities` [B, n] of B images, by class of its `scheme`.

    `mapping` says what its classes are in the scheme of the vote, where their names do not.
    """

    annotator: str
    scheme: str
    probabilities: np.ndarray
    mapping: label_schemes.Mapped = field(default_factory=dict[str, Mapping[str, float]])

    def mapped_to(self, scheme: str) -> Opinion:
        """The opinion on classes of `scheme`, those that it reaches; itself without a mapping."""
        if not self.mapping:
            return self
        reached = label_schemes.reached(self.scheme, scheme, self.mapping)
        shares = label_schemes.mapped(self.probabilities, self.scheme, scheme, self.mapping)
        return Opinion(self.annotator, label_schemes.listed(reached), shares)

    def at(self, temperatures: Mapping[str, float]) -> Opinion:
        """The opinion at its annotator's temperature, which is 1 if none is given."""
        temperature = temperatures.get(self.annotator, 1.0)
        return replace(self, probabilities=tempered(self.probabilities, temperature))

    def best(self, row: int) -> str:
        """The likeliest class of image `row`."""
        return label_schemes.scheme(self.scheme)[int(np.argmax(self.probabilities[row]))]

    def sees(self, labels: Sequence[str | None]) -> tuple[np.ndarray, np.ndarray]:
        """Which of B labels are classes of its scheme, and which it sees in their images, bool [B].

        It sees a class that is likelier than every other of its scheme.
        """
        classes = label_schemes.scheme(self.scheme)
        columns = np.array([classes.index(x) if x in classes else -1 for x in labels], int)
        rows, known = np.arange(len(columns)), columns >= 0
        others = self.probabilities.round(DECIMALS)
        shares = others[rows, columns]
        others[rows, columns] = -np.inf
        return known, known & (shares > others.max(1))


@dataclass(frozen=True)
class Verdict:
    """The vote of the annotators on one image.

    `probabilities` are their mean by class name, rounded. `label` is the wanted label, or the best
    class if no label was wanted or the vote replaced it (`rectified`). `agrees` says whether the
    wanted label is the best class both of the mean and of most annotators that know it; None if no
    label was wanted. `label_set` are the classes that a calibration leaves, None without one.
    """

    label: str
    probabilities: dict[str, float]
    rectified: bool
    agrees: bool | None = None
    label_set: tuple[str, ...] | None = None

    @property
    def confidence(self) -> float:
        """The probability of `label`, in [0, 1]."""
        return self.probabilities[self.label]

    @property
    def best(self) -> str:
        """The likeliest class; among equally likely ones `label`, or else the first."""
        highest = max(self.probabilities.values())
        if self.confidence == highest:
            return self.label
        return next(name for name, p in self.probabilities.items() if p == highest)


def average(opinions: Sequence[Opinion], scheme: str) -> np.ndarray:
    """The mean distribution float64 [B, n] of the opinions, by class of `scheme`.

    An annotator whose scheme lacks a class abstains on it: it gets the mean probability of those
    that know the class, and its own distribution fills the rest. Without this, a class that only
    some annotators know could hardly win. A class that no annotator knows has probability 0. Raises
    ValueError without opinions, and UserError for an unknown scheme.
    """
    if not opinions:
        raise ValueError("no opinion to average")
    classes = label_schemes.scheme(scheme)
    given = np.stack(
        [
            label_schemes.convert(o.probabilities.astype(np.float64), o.scheme, scheme)
            for o in opinions
        ]
    )
    known = np.array(
        [[name in label_schemes.scheme(o.scheme) for name in classes] for o in opinions]
    )
    votes = np.maximum(known.sum(0), 1)
    elsewhere = (given * known[:, None]).sum(0) / votes
    taken = np.where(known[:, None], 0.0, elsewhere)
    completed = taken + given * (1 - taken.sum(-1, keepdims=True))
    return completed.mean(0)


def vote(
    opinions: Sequence[Opinion],
    scheme: str,
    wanted: Sequence[str | None],
    rectify: bool = True,
    calibrated: Calibrated | None = None,
) -> list[Verdict]:
    """A verdict for each of B images; `wanted` are their labels of `scheme`, None for no label.

    A wanted label stays if it is the best class of the mean distribution. If not, the best class
    replaces it (arXiv 2410.09865, section 3.4), unless `rectify` is false. Among equally likely
    classes the wanted one is the best, or else the first of the scheme. The vote of `calibrated`
    annotators is taken and given at the temperatures found, and has label sets.
    """
    classes = label_schemes.scheme(scheme)
    opinions = [opinion.mapped_to(scheme) for opinion in opinions]
    if calibrated is None:
        rows = average(opinions, scheme).round(DECIMALS).tolist()
    else:
        opinions = [opinion.at(calibrated.temperatures) for opinion in opinions]
        rows = tempered(average(opinions, scheme), calibrated.vote).round(DECIMALS).tolist()
    verdicts: list[Verdict] = []
    for row, label, seen in zip(rows, wanted, _seen_by_most(opinions, wanted), strict=True):
        verdict = _verdict(dict(zip(classes, row, strict=True)), label, seen, rectify)
        if calibrated is not None:
            verdict = replace(verdict, label_set=calibrated.label_set(verdict.probabilities))
        verdicts.append(verdict)
    return verdicts


def _seen_by_most(opinions: Sequence[Opinion], labels: Sequence[str | None]) -> list[bool]:
    """Whether more than half of the annotators that know a label see it, for each image's label."""
    known, seen = np.array([opinion.sees(labels) for opinion in opinions]).sum(0)
    return (2 * seen > known).tolist()


def _verdict(
    probabilities: dict[str, float], wanted: str | None, seen: bool, rectify: bool
) -> Verdict:
    kept = Verdict(wanted or next(iter(probabilities)), probabilities, False)
    if wanted is None:
        return replace(kept, label=kept.best)
    best = kept.best == wanted
    if best or not rectify:
        return replace(kept, agrees=best and seen)
    return Verdict(kept.best, probabilities, True, False)
