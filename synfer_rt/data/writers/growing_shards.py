"""Shards that one process fills in order, so that it can go on inside the last one.

A shard grows as a tar under a temporary name in the run's own folder and is renamed when whole. A
tar only grows at its end, so a run that was killed continues within the shard that it was writing.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any

from synfer_rt.data.image_format import ImageFormat
from synfer_rt.data.writers import run_file
from synfer_rt.data.writers.atomic import commit, disk_errors, open_growing, partial
from synfer_rt.data.writers.file_shards import ShardFormat
from synfer_rt.data.writers.image_check import problem
from synfer_rt.data.writers.shards import joined
from synfer_rt.data.writers.tar_samples import samples, tar_sample, write_end
from synfer_rt.records import Record


class ShardWriter:
    """Fills the shards of a format one after another; see `Writer`."""

    missing, deferred = 0, False

    def __init__(self, out: Path, settings: Mapping[str, Any], format: ShardFormat) -> None:
        self.out, self.count = out, run_file.count(settings)
        self._size, self._format = int(settings["shard_size"]), format
        self.image_format = format.images
        self._folder = run_file.folder(out)
        self._file: IO[bytes] | None = None
        self._next = 0  # the index that the open tar goes on with
        shards = range(-(-self.count // self._size))
        self._whole = {n for n in shards if format.is_whole(self._final(n), len(self._indices(n)))}
        lacking: list[range] = []
        with disk_errors(out):
            for number in shards:
                if number in self._whole:
                    # A kill between the renaming of a converted shard and this leaves its tar.
                    partial(self._staging(number)).unlink(missing_ok=True)
                else:
                    lacking.append(self._lacking_of(number, first=not lacking))
        self.lacking = joined(lacking)
        self._first = self.lacking[0] if self.lacking else self.count
        self._awaited = self.lacking if isinstance(self.lacking, range) else set(self.lacking)
        self.done = self.count - len(self.lacking)

    def _final(self, number: int) -> Path:
        return self.out / self._format.name(number)

    def _staging(self, number: int) -> Path:
        return self._folder / self._format.tar_name(number)

    def _indices(self, number: int) -> range:
        return range(number * self._size, min((number + 1) * self._size, self.count))

    def _lacking_of(self, number: int, first: bool) -> range:
        """What a shard lacks. The first that is not whole stays open, for this process alone."""
        indices = self._indices(number)
        if first:
            self._open(number, indices.stop)
            if self._next == indices.start + self._size:
                self._seal()  # killed between its last sample and its renaming
            return range(self._next, indices.stop)
        if not partial(self._staging(number)).exists():
            return indices
        with partial(self._staging(number)).open("rb") as file:
            return range(_end_of_whole(file, indices, self.image_format)[0], indices.stop)

    def _open(self, number: int, stop: int) -> None:
        """Open the tar of a shard after the last sample before `stop` that is whole in it."""
        file = open_growing(self._staging(number))
        indices = range(number * self._size, stop)
        self._next, end = _end_of_whole(file, indices, self.image_format)
        file.seek(end)
        file.truncate()
        self._file = file

    def records(self) -> Iterator[Record]:
        """The records of the samples before the first that is lacking."""
        for number in range(-(-self._first // self._size)):
            if number in self._whole:
                yield from self._format.records(self._final(number))
            else:
                with partial(self._staging(number)).open("rb") as file:
                    yield from (record for record, _, _ in samples(file))

    def write(self, records: Sequence[Mapping[str, Any]], images: Sequence[bytes]) -> None:
        """Write samples in the order of their indices."""
        with disk_errors(self.out):
            for record, image in zip(records, images, strict=True):
                index = record["index"]
                if self._file is None:
                    self._open(index // self._size, index)
                assert self._file is not None and index == self._next
                self._file.write(tar_sample(record, image, self.image_format))
                self._next += 1
                self.done += index in self._awaited
                if self._next % self._size == 0:
                    self._seal()
            if self._file is not None:
                self._file.flush()
                os.fsync(self._file.fileno())

    def _seal(self) -> None:
        """Give the open shard its final name."""
        assert self._file is not None
        number = (self._next - 1) // self._size
        if self._format.convert is None:
            write_end(self._file)
            commit(self._file, self._final(number), self._staging(number))
        else:
            self._file.flush()
            tar, grown = partial(self._staging(number)), self._folder / self._format.name(number)
            with partial(grown).open("wb") as target:
                self._format.convert(tar, target)
                commit(target, self._final(number), grown)
            self._file.close()
            tar.unlink()
        self._whole.add(number)
        self._file = None

    def finish(self) -> None:
        """Give the last shard its final name."""
        if self._file is not None and self._next % self._size == 0:
            # A run that resumes opens the next shard before it knows that none is to come.
            with disk_errors(self.out):
                self._file.close()
                partial(self._staging(self._next // self._size)).unlink()
            self._file = None
        if self.done < self.count:
            run_file.end(self.out, self.done)
            self.count = self.done
        with disk_errors(self.out):
            if self._file is not None:
                self._seal()
            for number in range(-(-self.count // self._size)):
                if number not in self._whole:  # whole but for its name, after one that was not
                    self._open(number, self._indices(number).stop)
                    self._seal()
        run_file.clear(self.out)

    def close(self) -> None:
        """Stop; what is written stays for a run that resumes."""
        if self._file is not None:
            with disk_errors(self.out):
                self._file.close()


def _end_of_whole(file: IO[bytes], indices: range, format: ImageFormat) -> tuple[int, int]:
    """The index and the position in a growing tar after the last of `indices` whole in it."""
    index, end = indices.start, 0
    for record, image, position in samples(file):
        if index == indices.stop or record["index"] != index or problem(image, format):
            break
        index, end = index + 1, position
    return index, end
