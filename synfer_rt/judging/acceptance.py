"""Which labels to keep: thresholds on the vote's confidence that adapt to each class.

After arXiv 2303.08617. Decisions are made on rounded probabilities (`voting.DECIMALS`).
"""

from __future__ import annotations

import math
from bisect import bisect_right, insort
from collections.abc import Callable

from synfer_rt import ranges
from synfer_rt.errors import UserError
from synfer_rt.judging.voting import Verdict

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
