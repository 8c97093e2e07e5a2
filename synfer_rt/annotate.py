"""What several annotators say together, and which labels to keep: pure functions on arrays.

FERAnno and any number of classifiers vote (He et al., SynFER, arXiv 2410.09865, section 3.4);
thresholds on the vote's confidence adapt to each class (after arXiv 2303.08617).

Every decision is made on numbers of DECIMALS decimals, those that are written into a record: so a
run that resumes decides from its records as it would have decided without the interruption.
"""

from __future__ import annotations

import math
from bisect import bisect_right, insort
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from synfer_rt import labels, ranges
from synfer_rt.errors import UserError

DECIMALS = 6


@dataclass(frozen=True)
class Opinion:
    """What one annotator says: `probabilities` [B, n] in the order of its own label scheme."""

    annotator: str
    scheme: str
    probabilities: np.ndarray

    def best(self, row: int) -> str:
        """The class that it takes image `row` for."""
        return labels.scheme(self.scheme)[int(np.argmax(self.probabilities[row]))]

    def sees(self, row: int, label: str) -> bool:
        """Whether it takes image `row` for `label`, a class of its scheme, and no other as well."""
        shares = self.probabilities[row].round(DECIMALS)
        index = labels.scheme(self.scheme).index(label)
        return bool(shares[index] > np.delete(shares, index).max())


@dataclass(frozen=True)
class Verdict:
    """What the annotators say together of one image.

    `probabilities` are their average by class name, rounded, and `label` is its best class;
    `rectified` says that another label was wanted, which these two replace. `agrees` says whether
    the wanted label is both the average's best class and that of most annotators that know it; None
    where no label was wanted.
    """

    label: str
    probabilities: dict[str, float]
    rectified: bool
    agrees: bool | None = None

    @property
    def confidence(self) -> float:
        """The probability of `label`, in [0, 1]."""
        return self.probabilities[self.label]

    @property
    def best(self) -> str:
        """The likeliest class; of equally likely ones `label`, else the first of the scheme."""
        highest = max(self.probabilities.values())
        if self.confidence == highest:
            return self.label
        return next(name for name, p in self.probabilities.items() if p == highest)


def average(opinions: Sequence[Opinion], scheme: str) -> np.ndarray:
    """The mean distribution float64 [B, n] of the opinions, in the order of `scheme`.

    An annotator that lacks a class abstains on it: it takes over what those say that know it, and
    spreads the rest by its own distribution. Else a class that only some know could hardly win.
    A class that nobody knows has 0. Raises ValueError without opinions, UserError for an unknown
    scheme.
    """
    if not opinions:
        raise ValueError("no opinion to average")
    classes = labels.scheme(scheme)
    given = np.stack(
        [labels.convert(o.probabilities.astype(np.float64), o.scheme, scheme) for o in opinions]
    )
    known = np.array([[name in labels.scheme(o.scheme) for name in classes] for o in opinions])
    votes = np.maximum(known.sum(0), 1)
    elsewhere = (given * known[:, None]).sum(0) / votes
    taken = np.where(known[:, None], 0.0, elsewhere)
    completed = taken + given * (1 - taken.sum(-1, keepdims=True))
    return completed.mean(0)


def vote(
    opinions: Sequence[Opinion], scheme: str, wanted: Sequence[str | None], rectify: bool = True
) -> list[Verdict]:
    """A verdict for each of B images; `wanted` are their labels of `scheme` as requested
    or given, if any.

    Where the vote agrees with the wanted label, that label stays; where it does not, the average
    distribution and its best class replace it (arXiv 2410.09865, section 3.4), or with `rectify`
    false the distribution alone. Of equally likely classes the wanted one is the best, else the
    first of the scheme.
    """
    classes = labels.scheme(scheme)
    rows = average(opinions, scheme).round(DECIMALS).tolist()
    verdicts = []
    for i, (row, label) in enumerate(zip(rows, wanted, strict=True)):
        seen = label is not None and _seen_by_most(opinions, i, label)
        verdicts.append(_verdict(dict(zip(classes, row, strict=True)), label, seen, rectify))
    return verdicts


def _seen_by_most(opinions: Sequence[Opinion], row: int, label: str) -> bool:
    """Whether more than half of the annotators that know `label` take image `row` for it."""
    knowing = [opinion for opinion in opinions if label in labels.scheme(opinion.scheme)]
    return 2 * sum(opinion.sees(row, label) for opinion in knowing) > len(knowing)


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


Accept = Callable[[Verdict], bool | None]
"""Whether a verdict is accepted, None where nothing was asked that it could answer.

To be asked once for each sample, in the order of the indices.
"""


class RunningQuantile:
    """Accepts the share `accept_rate` of each class that is the most confident of it so far.

    A sample is accepted when, among all of its label seen up to and with itself, fewer than
    ceil(accept_rate * count) are more confident: so the threshold of a class is the running
    (1 - accept_rate) quantile of its confidences, and rises for classes that come out well.

    The state is a pure function of the (label, confidence) pairs seen, in their order. Hence the
    contract: a decision depends on the samples of lower index and on nothing else, not on the
    batch and not on interruptions; a run that resumes shows the records it has to `accept` again.
    """

    def __init__(self, accept_rate: float) -> None:
        if not ranges.is_real(accept_rate, 0, 1) or accept_rate == 0:
            raise UserError(
                f"--accept-rate {ranges.shown(accept_rate)} is outside its range; write a share "
                "above 0, up to 1."
            )
        self.accept_rate = accept_rate
        self._seen: dict[str, list[float]] = {}

    def __call__(self, verdict: Verdict) -> bool:
        """Whether the verdict is accepted; it counts as seen from now on."""
        seen = self._seen.setdefault(verdict.label, [])
        insort(seen, verdict.confidence)
        return len(seen) - bisect_right(seen, verdict.confidence) < self._share(len(seen))

    def _share(self, count: int) -> int:
        # 0.07 * 100 is a little more than 7 in floating point, and must not become 8.
        return math.ceil(round(self.accept_rate * count, 9))


def acceptance(accept_rate: float | None = None, threshold: float | None = None) -> Accept:
    """How verdicts are accepted: by a share of each class, by a fixed confidence, or by agreement.

    With `accept_rate` a RunningQuantile, with `threshold` whatever is at least as confident, with
    neither what the average and most annotators agree on (`Verdict.agrees`). Raises UserError for
    both, and for one outside its range.
    """
    if accept_rate is not None and threshold is not None:
        raise UserError("--accept-rate and --threshold exclude each other; leave one out.")
    if accept_rate is not None:
        return RunningQuantile(accept_rate)
    if threshold is None:
        return lambda verdict: verdict.agrees
    if not ranges.is_real(threshold, 0, 1):
        written = ranges.shown(threshold)
        raise UserError(f"--threshold {written} is outside its range; write one of 0 to 1.")
    return lambda verdict: verdict.confidence >= threshold


class Round:
    """The `size` labels of a round, in their order: worked out, for there may be billions."""

    def __init__(self, missing: Mapping[str, int], budget: int) -> None:
        # While the same classes lack images, they take turns; each such block has its end.
        self._blocks: list[tuple[int, list[str]]] = []
        turn = end = 0
        for turns in sorted({count for count in missing.values() if count > 0}):
            lacking = [label for label, count in missing.items() if count >= turns]
            end += (turns - turn) * len(lacking)
            self._blocks.append((end, lacking))
            turn = turns
        self.size = max(0, min(budget, end))

    def __getitem__(self, index: int) -> str:
        """The label of index 0 to `size` - 1. Raises IndexError for another."""
        begin = 0
        for end, lacking in self._blocks:
            if begin <= index < min(end, self.size):
                return lacking[(index - begin) % len(lacking)]
            begin = end
        raise IndexError(index)

    def __iter__(self) -> Iterator[str]:
        return map(self.__getitem__, range(self.size))


def next_round(accepted: Mapping[str, int], quota: Mapping[str, int], budget: int) -> Round:
    """The labels to request next, so that each class gets `quota` accepted images.

    As many of each class as it still lacks, the classes taking turns, at most `budget` in all;
    nothing when all quotas are met. It never asks for more than is missing, so the counts end at
    their quotas, but for images that were rectified into a class that was full.

    The contract of a run with quotas: index i of a round requests the i-th label of the round, a
    round is known when the round before it is finished, and nothing else decides it. So indices
    are without gaps, each is made once, and a run is the same at any batch size (a batch ends
    where its round ends) and after any interruption (the rounds follow from the records).
    """
    missing = {label: count - accepted.get(label, 0) for label, count in quota.items()}
    return Round(missing, budget)


class Quotas:
    """The labels that a run with quotas requests, by index, from what was accepted before.

    `budget` is the most images that the run makes. `label(i)` may be asked once all samples of the
    rounds before that of `i` were shown to `count`, in their order.
    """

    def __init__(self, quota: Mapping[str, int], budget: int) -> None:
        self.quota, self.budget = dict(quota), budget
        self.accepted = dict.fromkeys(quota, 0)
        self.counted = self._begin = 0
        self._round = next_round(self.accepted, quota, budget)

    @property
    def end(self) -> int:
        """The first index after the present round; a batch must not reach beyond it."""
        return self._begin + self._round.size

    @property
    def finished(self) -> bool:
        """Whether every quota is met, or the budget is used up."""
        return not self._round.size

    def label(self, index: int) -> str:
        """The label to request of an index of the present round."""
        return self._round[index - self._begin]

    def count(self, label: str, accepted: bool) -> None:
        """The next sample turned out to show `label`, and was accepted or not."""
        self.counted += 1
        if accepted:
            self.accepted[label] = self.accepted.get(label, 0) + 1
        if self.counted == self.end:
            self._begin = self.counted
            self._round = next_round(self.accepted, self.quota, self.budget - self.counted)

    def missing(self) -> dict[str, int]:
        """How many accepted images each class still lacks; empty when none does."""
        lacks = {label: count - self.accepted[label] for label, count in self.quota.items()}
        return {label: count for label, count in lacks.items() if count > 0}
