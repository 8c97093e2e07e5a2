"""What other processes make of a run in parts, as far as a part needs it."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Mapping

from synfer_rt.data.writers.shards import PartWriter
from synfer_rt.errors import UserError
from synfer_rt.jobs.verify import spans
from synfer_rt.records import Record

LOG = logging.getLogger(__name__)
PATIENCE: float = 600
"""Seconds without anything written after which a part no longer waits for others."""
_PAUSES = 0.02, 2.0
"""Seconds between two looks: the first, and the most."""


class OtherParts:
    """The shards of a run that `writer` makes a part of.

    It waits for them as long as somebody writes; after `patience` seconds in which no file of the
    run has grown or come, it gives up. No clocks of machines are compared.
    """

    def __init__(self, writer: PartWriter, patience: float) -> None:
        self._writer, self._patience = writer, patience

    def shard(self, index: int) -> range:
        """The indices of a whole shard, that of the sample `index`."""
        size = self._writer.shard_size
        first = index - index % size
        return range(first, first + size)

    def records(self, first: int, end: int) -> Iterator[Record]:
        """The records of the samples `first` to `end - 1`, as far as their shards are there."""
        return self._writer.records(first, end)

    def end(self, made: int) -> None:
        """Note that the run ends with so many samples."""
        self._writer.end(made)

    def wait(self, needed: Callable[[], range], own: int) -> None:
        """Wait until no more samples are `needed`, which is asked again and again.

        `own` is the index after the last sample that this process has made, which it may still
        be writing. Returns at once if that fails. Raises UserError when patience is at its end.
        """
        pause, most = _PAUSES
        grown: Mapping[str, int] = {}
        since, told = time.monotonic(), False
        while (samples := needed()) and not self._writer.failed:
            now, before, grown = time.monotonic(), grown, self._writer.growth()
            if grown != before:
                since = now
            elif now - since >= self._patience and self._writer.written >= own:
                raise UserError(
                    f"What is requested next depends on {self._shards(samples)}, which other parts "
                    f"make, and nothing was written for {self._patience:.0f} s; run those parts, "
                    "then this one again."
                )
            if pause >= most and not told:
                LOG.info(f"Waiting for {self._shards(samples)} of other parts.")
                told = True
            time.sleep(min(pause, self._patience))
            pause = min(1.5 * pause, most)

    def _shards(self, samples: range) -> str:
        """The shards that have these samples and are not there, in words."""
        size = self._writer.shard_size
        numbers = self._writer.lacks(range(samples.start // size, -(-samples.stop // size)))
        return f"shard{'' if len(numbers) == 1 else 's'} {spans(numbers)}"
