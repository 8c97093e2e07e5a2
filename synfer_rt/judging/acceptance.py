"""Which samples are accepted, by the vote's agreement or by its confidence.

The share of each class follows arXiv 2303.08617. All decisions are made on rounded probabilities
(`rounding.DECIMALS`).
"""

from __future__ import annotations

import math
from bisect import bisect_right, insort
from collections.abc import Callable

from synfer_rt import ranges
from synfer_rt.errors import UserError
from synfer_rt.judging.voting import Verdict

Accept = Callable[[Verdict], bool | None]
"""Whether a verdict is accepted; None if no label was wanted that it could agree with.

It must be called once for each sample, in the order of the indices.
"""


class RunningQuantile:
    """Accepts the most confident samples of each class so far, in the proportion `accept_rate`.

    A sample is accepted if, of the `count` samples of its label up to itself, fewer than
    ceil(accept_rate * count) are more confident. So the threshold of a class is the running
    (1 - accept_rate) quantile of its confidences; it is higher for classes that are easier.

    The state is a pure function of the labels and confidences seen, in their order. So a decision
    depends on the samples of lower index alone, not on the batch or on interruptions; a run that
    resumes passes the records that it has first. Raises UserError unless `accept_rate` is above 0
    and at most 1.
    """

    def __init__(self, accept_rate: float) -> None:
        self.accept_rate = ranges.part("accept_rate", accept_rate)
        self._seen: dict[str, list[float]] = {}

    def __call__(self, verdict: Verdict) -> bool:
        """Whether the verdict is accepted; it counts among those seen afterwards."""
        seen = self._seen.setdefault(verdict.label, [])
        insort(seen, verdict.confidence)
        return len(seen) - bisect_right(seen, verdict.confidence) < self._share(len(seen))

    def _share(self, count: int) -> int:
        # 0.07 * 100 is slightly above 7 in floating point and must not become 8.
        return math.ceil(round(self.accept_rate * count, 9))


def acceptance(accept_rate: float | None = None, threshold: float | None = None) -> Accept:
    """How verdicts are accepted.

    `accept_rate` accepts that part of each class (see RunningQuantile), `threshold` the verdicts of
    at least that confidence. Without both, a verdict is accepted if the mean and most annotators
    see the wanted label (`Verdict.agrees`). Raises UserError for both together, an accept rate
    outside (0, 1] and a threshold outside [0, 1].
    """
    if accept_rate is not None and threshold is not None:
        raise UserError("`accept_rate` and `threshold` exclude each other; leave one out.")
    if accept_rate is not None:
        return RunningQuantile(accept_rate)
    if threshold is None:
        return lambda verdict: verdict.agrees
    least = ranges.real("threshold", threshold, 0, 1)
    return lambda verdict: verdict.confidence >= least
