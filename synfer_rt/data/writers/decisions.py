"""Which samples of a run in parts are accepted, where that depends on the samples before.

A process that makes a shard does not know the samples of others. So its records say of each sample
whether it may be accepted, which a broken one may not. When all shards are there, decisions are
taken over their records in the order of the indices, as one process takes them. A record that is
decided already stays as it is, since the same samples come before it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Protocol

from synfer_rt.data.writers import run_file
from synfer_rt.data.writers.file_shards import ShardFormat
from synfer_rt.data.writers.shards import Shards, Unfinished
from synfer_rt.data.writers.webdataset import shard_format
from synfer_rt.errors import UserError
from synfer_rt.judging.acceptance import acceptance
from synfer_rt.judging.voting import Verdict
from synfer_rt.records import Record


def decider(settings: Mapping[str, Any]) -> Callable[[Record], Record]:
    """What decides a run's records, to be called with each in the order of the indices."""
    accept = acceptance(settings["accept_rate"])

    def decide(record: Record) -> Record:
        verdict = Verdict(record["label"], record["probabilities"], record["rectified"])
        accepted = bool(accept(verdict)) and record["accepted"]
        return {**record, "accepted": accepted}

    return decide


class SampleFiles(Shards, Protocol):
    """Shards that are files, on this machine or in a store."""

    def path(self, number: int) -> object:
        """Where a shard lies, for messages."""
        ...

    def samples(self, number: int) -> Iterator[tuple[Record, bytes]]:
        """The whole samples of a shard; OSError passes through."""
        ...

    def remove(self, number: int) -> None:
        """Remove a shard, if it is there."""
        ...


def undecided(settings: Mapping[str, Any]) -> ShardFormat:
    """How shards are written until their samples are decided: as tars, in any format."""
    return shard_format(settings, run_file.UNDECIDED.replace("*", "{:06d}").format)


class UndecidedFiles:
    """The shards of a run whose samples are decided at its end; see `Shards`.

    Until then a shard is one of those that are `made`, in the run's own folder; then one of those
    that are `final`.
    """

    def __init__(self, settings: Mapping[str, Any], final: SampleFiles, made: SampleFiles) -> None:
        self._settings, self._final, self._made = settings, final, made

    def present(self) -> set[int]:
        """The shards that are there, decided or not."""
        return self._made.present() | self._final.present()

    def is_whole(self, number: int) -> bool:
        """Whether one of them has all samples, and its end."""
        return self._final.is_whole(number) or self._made.is_whole(number)

    def finished_at(self, number: int) -> float | None:
        """When the first of them was last written to."""
        when = self._made.finished_at(number)
        return self._final.finished_at(number) if when is None else when

    def records(self, numbers: Iterable[int]) -> Iterator[Record]:
        """The records, decided or not."""
        for number in numbers:
            shards = self._final if self._final.is_whole(number) else self._made
            yield from shards.records([number])

    def begin(self, number: int) -> Unfinished:
        """Begin to make it, undecided."""
        return self._made.begin(number)

    def finish(self) -> None:
        """Decide all samples, and write the files that readers open."""
        decide = decider(self._settings)
        for number in range(run_file.shard_count(self._settings)):
            try:
                if not self._final.is_whole(number):
                    self._write(number, decide)
                    continue
            except FileNotFoundError:  # another process has decided all, and removed what it had
                if not self._final.is_whole(number):
                    raise
            for record in self._final.records([number]):
                decide(record)
        for number in range(run_file.shard_count(self._settings)):
            self._made.remove(number)

    def is_finished(self) -> bool:
        """Whether no shard is left that was made before the decisions."""
        return not self._made.present()

    def _write(self, number: int, decide: Callable[[Record], Record]) -> None:
        shard = self._final.begin(number)
        left = len(run_file.shard_indices(self._settings, number))
        try:
            for record, image in self._made.samples(number):
                shard.add([decide(record)], [image])
                left -= 1
            if left:
                path = self._made.path(number)
                raise UserError(f"{path} is damaged; remove it, and run the command of its part.")
            shard.publish()
        finally:
            shard.discard()

    def close(self) -> None:
        """Free what both hold."""
        self._final.close()
        self._made.close()
