"""A run as shards that any process may make, in any order.

A shard is the samples `n * shard_size` to `(n + 1) * shard_size - 1` of a run. Its bytes depend on
nothing but them. Whoever makes it does so under a name of its own in the run's own folder, and
gives it its final name when it is whole, unless another process was faster. So processes on any
number of machines work on one output without locks. What a process has not finished when it ends is
lost, since no other could tell that it has ended.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, cast

from synfer_rt import ranges
from synfer_rt.data.image_format import of_settings
from synfer_rt.data.writers import run_file
from synfer_rt.data.writers.atomic import disk_errors
from synfer_rt.errors import UserError
from synfer_rt.records import Record


class Unfinished(Protocol):
    """A shard that this process is making; OSError passes through."""

    def add(self, records: Sequence[Mapping[str, Any]], images: Sequence[bytes]) -> None:
        """Add its next samples."""
        ...

    def publish(self) -> None:
        """Give it its final name, unless another process has: it has all its samples."""
        ...

    def discard(self) -> None:
        """Remove it."""
        ...


class Shards(Protocol):
    """The shards of a run in one format, by their numbers."""

    def present(self) -> set[int]:
        """The numbers of those that are there now, whole or damaged."""
        ...

    def is_whole(self, number: int) -> bool:
        """Whether it is whole, as far as this shows without reading everything."""
        ...

    def finished_at(self, number: int) -> float | None:
        """When it was finished, in seconds since the epoch; None if nothing tells."""
        ...

    def records(self, numbers: Iterable[int]) -> Iterator[Record]:
        """The records of whole shards, whose numbers rise, by index; images are not read."""
        ...

    def begin(self, number: int) -> Unfinished:
        """Begin to make it."""
        ...

    def finish(self) -> None:
        """Make of the shards, which are all whole, what readers open."""
        ...

    def is_finished(self) -> bool:
        """Whether that is done, or needs nothing."""
        ...

    def close(self) -> None:
        """Free what the object holds."""
        ...


def deferred(settings: Mapping[str, Any]) -> bool:
    """Whether what a run with these settings accepts depends on the samples before each.

    Where it is made in parts, that is decided when all shards are there.
    """
    return settings.get("accept_rate") is not None


@dataclass(frozen=True)
class Part:
    """The shards of a run whose number is `number` modulo `count`.

    Whoever makes the part `finishes` the run if all its shards are there, or leaves that to others.
    """

    number: int
    count: int
    finishes: bool = True

    def of(self, shards: int) -> range:
        """The numbers of its shards, of so many in all."""
        return range(self.number, shards, self.count)


EVERY = Part(0, 1)


def part_of(value: object) -> Part:
    """The part that (K, N) names, with K from 0 to N - 1. Raises UserError for anything else."""
    pair = tuple(cast("Sequence[Any]", value)) if isinstance(value, tuple | list) else ()
    if len(pair) == 2 and ranges.is_whole(pair[1], 1) and ranges.is_whole(pair[0], 0, pair[1] - 1):
        return Part(int(pair[0]), int(pair[1]))
    got = "/".join(map(str, pair)) if pair else repr(cast(object, value))
    raise UserError(
        "`part` must be two whole numbers K and N with K from 0 to N - 1, as 0/8 to 7/8 are eight "
        f"parts, got {got}."
    )


class PartWriter:
    """Makes the shards of a part that are not there, beside processes that make others.

    See `Writer`, of which it differs in one point: what is not a whole shard when it is closed is
    lost. When the part is finished and all shards of the run are there, so is the run.

    `settings` are updated when the run ends with fewer samples; `shards` read them at each call.
    """

    def __init__(
        self, out: Path, settings: dict[str, Any], shards: Shards, part: Part = EVERY
    ) -> None:
        self._out, self._settings, self._shards = out, settings, shards
        self._finishes = part.finishes
        mine = {n: self._indices(n) for n in part.of(run_file.shard_count(settings))}
        with disk_errors(out):
            lacking = [indices for n, indices in mine.items() if not shards.is_whole(n)]
        self.lacking = joined(lacking)
        self.count = sum(map(len, mine.values()))
        self.done = self.count - len(self.lacking)
        self.missing, self.deferred = 0, deferred(settings)
        self.image_format = of_settings(settings)
        self.failed = False
        self.written = 0
        """The index after the last sample that was written now."""
        self._open: Unfinished | None = None

    @property
    def shard_size(self) -> int:
        """Samples in a shard."""
        return int(self._settings["shard_size"])

    def _indices(self, number: int) -> range:
        return run_file.shard_indices(self._settings, number)

    def records(self, first: int = 0, end: int | None = None) -> Iterator[Record]:
        """The records of the samples from `first` to before `end`, by default the first lacking.

        They end where a shard is not whole. Others may finish it, and a later call goes on with it.
        Raises UserError.
        """
        if end is None:
            end = self.lacking[0] if self.lacking else run_file.count(self._settings)
        self._read_end()
        numbers = range(first // self.shard_size, run_file.shard_count(self._settings))
        whole = itertools.takewhile(self._shards.is_whole, numbers)
        # A process that finishes the run meanwhile removes the files that it no longer needs.
        with disk_errors(self._out), suppress(FileNotFoundError):
            for record in self._shards.records(whole):
                if record["index"] >= end:
                    return
                if record["index"] >= first:
                    yield record

    def lacks(self, numbers: Iterable[int]) -> list[int]:
        """The numbers of the shards among these that are not whole. Raises UserError."""
        with disk_errors(self._out):
            return [number for number in numbers if not self._shards.is_whole(number)]

    def growth(self) -> Mapping[str, int]:
        """The files of the run that are not whole yet, with their sizes.

        They change whenever a process writes something. Raises UserError.
        """
        sizes: dict[str, int] = {}
        with disk_errors(self._out):
            for file in run_file.growing(self._out):
                with suppress(FileNotFoundError):  # finished meanwhile
                    sizes[str(file)] = file.stat().st_size
        return sizes

    def end(self, made: int) -> None:
        """Note that the run ends with `made` samples. Raises UserError."""
        self._read_end()
        if made < run_file.count(self._settings):
            run_file.end(self._out, made)
            self._read_end()

    def _read_end(self) -> None:
        """Read where the run ends, which any process may have noted."""
        self._settings.update(run_file.load(self._out))

    def write(self, records: Sequence[Mapping[str, Any]], images: Sequence[bytes]) -> None:
        """Write samples in the order of their indices; `failed` tells if this went wrong."""
        pairs = zip(records, images, strict=True)
        shards = itertools.groupby(pairs, lambda pair: pair[0]["index"] // self.shard_size)
        try:
            with disk_errors(self._out):
                for number, samples in shards:
                    self._write(number, list(samples))
        except BaseException:
            self.failed = True
            raise

    def _write(self, number: int, samples: list[tuple[Mapping[str, Any], bytes]]) -> None:
        if self._open is None:
            self._open = self._shards.begin(number)
        try:
            self._open.add(*zip(*samples, strict=True))
        except FileNotFoundError:
            # Another process has made this part too, and finished the run: what was here is gone.
            if not self._shards.is_whole(number):
                raise
        self.written = samples[-1][0]["index"] + 1
        self._publish_if_whole()

    def _publish_if_whole(self) -> None:
        number, shard = (self.written - 1) // self.shard_size, self._open
        indices = self._indices(number)
        if shard is None or self.written != indices.stop:
            return
        try:
            shard.publish()
        except FileNotFoundError:  # as above
            if not self._shards.is_whole(number):
                raise
            shard.discard()
        self._open = None
        self.done += len(indices)

    def finish(self) -> None:
        """The part is written: finish the run if all its shards are there.

        `missing` is the number of those that are not.
        """
        self._read_end()
        shards, numbers = self._shards, range(run_file.shard_count(self._settings))
        with disk_errors(self._out):
            self._publish_if_whole()  # the run may have ended within it
            if not self._finishes:
                self.close()
                return
            self.missing = len(numbers) - len(shards.present())
            if not self.missing:
                self.missing = sum(not shards.is_whole(number) for number in numbers)
        if not self.missing:
            finish(self._out, shards)
        self.close()

    def close(self) -> None:
        """Stop, and remove the shard that is not whole."""
        with disk_errors(self._out):
            if self._open is not None:
                self._open.discard()
                self._open = None
        self._shards.close()


def finish(out: Path, shards: Shards) -> None:
    """Finish the run in `out`, whose shards are all whole. Raises UserError.

    What processes have left of it that made the same shards is removed.
    """
    with disk_errors(out):
        shards.finish()
    for left in "*.partial", run_file.UNJOINED:
        run_file.clear(out, left)


def joined(ranges: Iterable[range]) -> Sequence[int]:
    """The indices of rising ranges, as one range where nothing lies between them."""
    parts = [part for part in ranges if part]
    if all(one.stop == next_.start for one, next_ in itertools.pairwise(parts)):
        return range(parts[0].start, parts[-1].stop) if parts else range(0)
    return list(itertools.chain.from_iterable(parts))
