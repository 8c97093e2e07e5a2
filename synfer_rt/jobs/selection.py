"""Which samples of a run are accepted, and which labels are requested next."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from itertools import takewhile
from typing import Any

from synfer_rt.jobs.other_parts import OtherParts
from synfer_rt.jobs.sample_run import Run
from synfer_rt.judging.voting import Verdict
from synfer_rt.sampling.samples import Sample


class Selection:
    """Decides one sample after the other which are accepted, and which labels come next.

    Everything follows from the run and the samples before, and so is the same when a run that was
    interrupted shows what it has. With `deferred` it is decided later, over the records of all
    samples, and until then all are accepted that are not broken.

    Of a run in parts, `others` have the samples that this process does not make. What a quota
    requests depends on them, so it is known when their shards are there: for a shard within a round
    those of the rounds before, and for one in which a round ends all shards before it.
    """

    def __init__(
        self,
        run: Run,
        records: Iterable[Mapping[str, Any]],
        deferred: bool = False,
        others: OtherParts | None = None,
    ) -> None:
        self._run = run
        self._accept = run.acceptance()
        self.quotas = run.quotas()
        self._deferred, self._others = deferred, others
        self._counted = self._decided = 0
        self._alone = self.quotas is None and (deferred or not run.in_order)
        if not self._alone:  # else nothing depends on the samples before
            self._follow(records)

    def indices(self, lacking: Sequence[int]) -> Sequence[int]:
        """What is to be made, where the writer lacks some: all after them too if it follows."""
        if self._alone or self._others is not None or not lacking:
            return lacking
        return range(lacking[0], self._run.count)

    def next(self, indices: Sequence[int]) -> tuple[Sequence[int], list[str] | None]:
        """Those of the next indices, rising, whose labels are known, and the labels with quotas.

        Without quotas all are known. With them there are none where a round ends, until all of it
        is decided, and when the run is whole.
        """
        if self.quotas is None:
            return indices, None
        known = list(takewhile(self._is_known, indices))
        return known, list(map(self.quotas.label, known))

    def wait(self, indices: Sequence[int]) -> None:
        """Wait until the label of the next index is known, or no more are requested.

        Call it when all samples are decided that were begun. Raises UserError if nobody makes the
        shards that are needed.
        """
        if self.quotas is None or self._others is None or not indices:
            return
        self._others.wait(lambda: self._needed(indices[0]), self._decided)
        if self.quotas.finished:
            self._others.end(self._counted)

    def decide(self, sample: Sample) -> Sample:
        """The next sample, accepted or not."""
        index, decided = sample.request.index, sample
        follows = not self._alone and index == self._counted
        if (follows or not self._deferred) and sample.probabilities:
            said = sample.label, sample.probabilities, sample.rectified, sample.accepted
            accepted = bool(self._accept(Verdict(*said))) and not sample.broken
            if accepted != sample.accepted:
                decided = replace(sample, accepted=accepted)
        if follows:
            self._count(decided.label, decided.accepted)
        self._decided = index + 1
        return replace(sample, accepted=not sample.broken) if self._deferred else decided

    def _is_known(self, index: int) -> bool:
        assert self.quotas is not None
        if self._others is None or index >= self.quotas.end:
            return index < self.quotas.end
        shard = self._others.shard(index)
        return min(shard.stop, self._run.count) <= self.quotas.end or shard.start <= self._counted

    def _needed(self, index: int) -> range:
        """The samples that are not there and decide the label of `index`; none if it is known.

        None are needed either when no more labels are requested.
        """
        assert self.quotas is not None and self._others is not None
        # Not further: another process may have made this sample meanwhile, and many after it.
        self._follow(self._others.records(self._counted, index))
        if self.quotas.finished or self._is_known(index):
            return range(0)
        return range(self._counted, min(self._others.shard(index).start, self.quotas.end))

    def _follow(self, records: Iterable[Mapping[str, Any]]) -> None:
        """Count samples that were made before or by others, as far as they come next."""
        for made in records:
            if made["index"] != self._counted:
                return
            said = made["label"], made["probabilities"], made["rectified"], made["accepted"]
            self._count(made["label"], bool(self._accept(Verdict(*said))) and made["accepted"])

    def _count(self, label: str, accepted: bool) -> None:
        self._counted += 1
        if self.quotas is not None:
            self.quotas.count(label, accepted)
