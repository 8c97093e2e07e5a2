"""Which samples of a run are accepted, and which labels are requested next."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from synfer_rt.jobs.sample_run import Run
from synfer_rt.judging.voting import Verdict
from synfer_rt.sampling.sampler import Sample


class Selection:
    """Decides one sample after the other which are accepted, and which labels come next.

    Everything follows from the run and the samples before, and so is the same when a run that was
    interrupted shows what it has. With `deferred` it is decided later, over the records of all
    samples, and until then all are accepted that are not broken.
    """

    def __init__(
        self, run: Run, records: Iterable[Mapping[str, Any]], deferred: bool = False
    ) -> None:
        self._run = run
        self._accept = run.acceptance()
        self.quotas = run.quotas()
        self._deferred = deferred
        self._alone = deferred or not run.in_order
        if self._alone:
            return  # nothing depends on the samples before
        for made in records:
            self._accept(Verdict(made["label"], made["probabilities"], made["rectified"]))
            self._count(made["label"], made["accepted"])

    def indices(self, lacking: Sequence[int]) -> Sequence[int]:
        """What is to be made, where the writer lacks some: all after them too if it follows."""
        if self._alone or not lacking:
            return lacking
        return range(lacking[0], self._run.count)

    def next(self, indices: Sequence[int]) -> tuple[Sequence[int], list[str] | None]:
        """Those of the next indices, rising, whose labels are known, and the labels with quotas.

        Without quotas all are known. With them there are none where a round ends, until all of it
        is decided, and when the run is whole.
        """
        if self.quotas is None:
            return indices, None
        known = [index for index in indices if index < self.quotas.end]
        return known, list(map(self.quotas.label, known))

    def decide(self, sample: Sample) -> Sample:
        """The next sample, accepted or not."""
        if self._deferred:
            return replace(sample, accepted=not sample.broken)
        if sample.probabilities:
            said = sample.label, sample.probabilities, sample.rectified, sample.accepted
            accepted = bool(self._accept(Verdict(*said))) and not sample.broken
            if accepted != sample.accepted:
                sample = replace(sample, accepted=accepted)
        self._count(sample.label, sample.accepted)
        return sample

    def _count(self, label: str, accepted: bool) -> None:
        if self.quotas is not None:
            self.quotas.count(label, accepted)
