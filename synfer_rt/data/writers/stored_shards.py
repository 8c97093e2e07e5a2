"""Shards that are objects of a store.

Whoever makes a shard does so on this disk and puts the finished file as one object. A listing says
which are there. Their last bytes say whether they are whole: an object is put whole or not at all,
so this only finds what others have done to it.

Beside each shard an object in the run's own folder has its records without images. So a run is
counted and its card written without reading the images again. It is put first: where the shard is,
so are its records.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from synfer_rt.data.image_format import ImageFormat
from synfer_rt.data.storage.objects import Entry, Objects
from synfer_rt.data.writers import run_file
from synfer_rt.data.writers.atomic import own
from synfer_rt.data.writers.file_shards import FileShards, ShardFormat
from synfer_rt.data.writers.shards import Unfinished
from synfer_rt.data.writers.tar_samples import line
from synfer_rt.records import Record, json_object

RECORDS = "records-{:05d}.jsonl"
"""The object with the records of a shard, by its number."""
_AT_ONCE = 8
"""Objects that are looked at or fetched at once: an answer takes far longer than its work."""


class StoredShards:
    """The shards of a run in a store, of which `files` are those on this disk; see `Shards`.

    `objects` are those beside which the shards lie, `beside` those of their records; None for
    shards that have none. OSError is of this disk, or FileNotFoundError for an object that is gone.
    """

    def __init__(
        self,
        settings: Mapping[str, Any],
        format: ShardFormat,
        files: FileShards,
        objects: Objects,
        beside: Objects | None = None,
    ) -> None:
        self._settings, self._format, self._files = settings, format, files
        self._objects, self._beside = objects, beside
        self._listed: dict[str, Entry] | None = None
        self._ends: dict[tuple[int, int], Future[bool]] = {}
        self._pool = ThreadPoolExecutor(_AT_ONCE, "look")

    def present(self) -> set[int]:
        """The shards that a listing shows now; their ends are looked at meanwhile."""
        self._listed = self._objects.entries()
        numbers = range(run_file.shard_count(self._settings))
        found = {n: entry for n in numbers if (entry := self._listed.get(self._format.name(n)))}
        for number, entry in found.items():
            if (number, entry.size) not in self._ends:
                whole = self._pool.submit(self._has_end, number)
                self._ends[number, entry.size] = whole
        return {*found}

    def _entry(self, number: int) -> Entry | None:
        if self._listed is None:
            self.present()
        assert self._listed is not None
        return self._listed.get(self._format.name(number))

    def _has_end(self, number: int) -> bool:
        indices = run_file.shard_indices(self._settings, number)
        try:
            return self._objects.look(
                self._format.name(number), lambda file: self._format.has_end(file, indices)
            )
        except FileNotFoundError:
            return False

    def is_whole(self, number: int) -> bool:
        """Whether it is there, and ends with its last sample."""
        entry = self._entry(number)
        return entry is not None and self._ends[number, entry.size].result()

    def finished_at(self, number: int) -> float | None:
        """When it was put, if the store tells."""
        entry = self._entry(number)
        return None if entry is None else entry.time

    def is_finished(self) -> bool:
        """The objects are what readers open."""
        return True

    def path(self, number: int) -> str:
        """The address of a shard."""
        return f"{self._objects.address}/{self._format.name(number)}"

    def begin(self, number: int) -> Unfinished:
        """Begin to make it, on this disk."""
        lines = None if self._beside is None else own(self._files.path(number))
        file, format = self._files.begin(number), self._format.images
        return UnfinishedObject(self, number, file, format, lines)

    def put(self, number: int, lines: Path | None) -> None:
        """Put the finished file of a shard, after `lines`, its records, unless it is there."""
        file, name = self._files.path(number), self._format.name(number)
        if self._beside is not None and lines is not None:
            self._beside.put(lines, RECORDS.format(number), replace=True)
        damaged = self._entry(number) is not None and not self.is_whole(number)
        self._objects.put(file, name, replace=damaged)
        size = file.stat().st_size
        file.unlink()
        assert self._listed is not None
        self._listed[name] = Entry(size, time.time())
        self._ends[number, size] = self._pool.submit(bool, True)

    def records(self, numbers: Iterable[int]) -> Iterator[Record]:
        """The records of whole shards; several are fetched ahead."""
        with ThreadPoolExecutor(_AT_ONCE, "fetch") as pool:
            coming: deque[Future[Sequence[Record]]] = deque()
            for number in numbers:
                coming.append(pool.submit(self._records, number))
                if len(coming) == _AT_ONCE:
                    yield from coming.popleft().result()
            for one in coming:
                yield from one.result()

    def _records(self, number: int) -> Sequence[Record]:
        """The records of a shard, from the shard itself if their object is not what it was."""
        if self._beside is not None:
            try:
                found = self._beside.read(RECORDS.format(number)).splitlines()
                records = list(map(json_object, found))
                indices = [record.get("index") for record in records]
                if indices == list(run_file.shard_indices(self._settings, number)):
                    return records
            except (FileNotFoundError, ValueError):
                pass
        with self._fetched(number) as file:
            return list(self._format.records(file))

    def samples(self, number: int) -> Iterator[tuple[Record, bytes]]:
        """The whole samples of a shard."""
        with self._fetched(number) as file:
            yield from self._format.samples(file)

    @contextmanager
    def _fetched(self, number: int) -> Generator[Path]:
        """A shard as a file of this disk, within the block."""
        with fetched(self._objects, self._format.name(number), self._files.path(number)) as file:
            yield file

    def remove(self, number: int) -> None:
        """Remove it, if it is there."""
        if self._entry(number) is not None:
            self._objects.remove(self._format.name(number))

    def finish(self) -> None:
        """The objects are what readers open."""

    def close(self) -> None:
        """Look at nothing more."""
        self._pool.shutdown(cancel_futures=True)


class UnfinishedObject:
    """A shard that this process is making on this disk, and its records in `lines`."""

    def __init__(
        self,
        shards: StoredShards,
        number: int,
        file: Unfinished,
        format: ImageFormat,
        lines: Path | None,
    ) -> None:
        self._shards, self._number, self._format = shards, number, format
        self._file, self._path = file, lines
        self._lines = None if lines is None else lines.open("wb")

    def add(self, records: Sequence[Mapping[str, Any]], images: Sequence[bytes]) -> None:
        """Append the samples."""
        self._file.add(records, images)
        if self._lines is not None:
            self._lines.writelines(line(record, self._format) + b"\n" for record in records)

    def publish(self) -> None:
        """Put the shard, unless it is there."""
        self._file.publish()
        if self._lines is not None:
            self._lines.close()
        self._shards.put(self._number, self._path)
        self.discard()

    def discard(self) -> None:
        """Remove what is on this disk."""
        self._file.discard()
        if self._lines is not None and self._path is not None:
            self._lines.close()
            self._path.unlink(missing_ok=True)


@contextmanager
def fetched(objects: Objects, name: str, beside: Path) -> Generator[Path]:
    """An object as a file of this disk within the block, with a name of its own `beside` a path."""
    file = own(beside)
    try:
        objects.fetch(name, file)
        yield file
    finally:
        file.unlink(missing_ok=True)
