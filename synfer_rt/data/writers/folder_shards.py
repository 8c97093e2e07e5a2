"""The imagefolder format in shards: images under their final names, and a file of their records.

The records of a shard lie in the run's own folder, `metadata-00000.jsonl`, since readers want one
`metadata.jsonl`. When all shards are there, they are joined. What one process has written before
counts too, as its metadata or its journal has the records.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial as partial_of
from pathlib import Path
from typing import IO, Any

from synfer_rt.data.image_format import ImageFormat, of_settings
from synfer_rt.data.writers import run_file
from synfer_rt.data.writers.atomic import own, own_suffix, partial, publish
from synfer_rt.data.writers.decisions import decider
from synfer_rt.data.writers.image_check import has_both_ends
from synfer_rt.data.writers.imagefolder import METADATA, name_of, whole_lines, write_images
from synfer_rt.data.writers.shards import deferred
from synfer_rt.records import Record, json_object, metadata


class FolderShards:
    """The shards of a run as an imagefolder; see `Shards`."""

    def __init__(self, out: Path, settings: Mapping[str, Any]) -> None:
        self._out, self._settings = out, settings
        self._format = of_settings(settings)
        self._metadata, self._folder = out / METADATA, run_file.folder(out)
        self._pool = ThreadPoolExecutor(8, "save")
        self._joined = False
        self._names: list[str] = []
        self._read_names()

    def _read_names(self) -> None:
        """Read which images there are records of, outside of shards."""
        self._joined = self._metadata.exists()
        with self._before() as lines:
            self._names, _ = whole_lines(lines, self._format)

    def _covered(self, number: int) -> bool:
        """Whether the records of a shard are outside of it, perhaps since another process ended."""
        if not self._joined and self._metadata.exists():
            self._read_names()
        return self._indices(number).stop <= len(self._names)

    def _before(self) -> IO[bytes]:
        """The metadata, the journal of one process, or nothing."""
        for path in self._metadata, partial(self._folder / METADATA):
            with suppress(FileNotFoundError):
                return path.open("rb")
        return open(os.devnull, "rb")

    def _path(self, number: int) -> Path:
        return self._folder / run_file.UNJOINED.replace("*", f"{number:05d}")

    def present(self) -> set[int]:
        """The shards whose records are there."""
        numbers = range(run_file.shard_count(self._settings))
        return {n for n in numbers if self._path(n).exists() or self._covered(n)}

    def is_whole(self, number: int) -> bool:
        """Whether all its records are there, and each image with its ends."""
        names = self._names_of(number)
        if len(names) != len(self._indices(number)):
            return False
        check = partial_of(has_both_ends, format=self._format)
        return all(self._pool.map(check, [self._out / name for name in names]))

    def _indices(self, number: int) -> range:
        return run_file.shard_indices(self._settings, number)

    def _names_of(self, number: int) -> list[str]:
        """The images of a shard; none if its records are damaged."""
        indices = self._indices(number)
        try:
            with self._path(number).open("rb") as lines:
                names, length = whole_lines(lines, self._format, indices.start)
                return names if length == os.fstat(lines.fileno()).st_size else []
        except FileNotFoundError:
            return self._names[indices.start : indices.stop] if self._covered(number) else []

    def finished_at(self, number: int) -> float | None:
        """When its records were written; None if they are in the metadata of several shards."""
        with suppress(FileNotFoundError):
            return self._path(number).stat().st_mtime
        return None

    def records(self, numbers: Iterable[int]) -> Iterator[Record]:
        """The records of whole shards, whose numbers rise."""
        yield from map(json_object, self._lines(numbers))

    def _lines(self, numbers: Iterable[int]) -> Iterator[bytes]:
        with self._before() as before:
            position = 0
            for number in numbers:
                try:
                    with self._path(number).open("rb") as lines:
                        yield from lines
                except FileNotFoundError:
                    indices = self._indices(number)
                    wanted = indices.start - position, indices.stop - position
                    yield from itertools.islice(before, *wanted)
                    position = indices.stop

    def begin(self, number: int) -> UnfinishedFolder:
        """Begin to make it."""
        whole = partial_of(self.is_whole, number)
        return UnfinishedFolder(self._out, self._path(number), self._format, self._pool, whole)

    def finish(self) -> None:
        """Join the records of all shards in `metadata.jsonl`."""
        if self._is_joined():
            return
        grown = own(self._folder / METADATA)
        try:
            with grown.open("wb") as file:
                file.writelines(self._decided())
                file.flush()
                os.fsync(file.fileno())
            publish(grown, self._metadata, self._is_joined)
        except FileNotFoundError:
            # Another process joins them too, and has removed them since.
            grown.unlink(missing_ok=True)
            if not self._is_joined():
                raise

    def _decided(self) -> Iterator[bytes]:
        """The lines of all shards, decided."""
        lines = self._lines(range(run_file.shard_count(self._settings)))
        if not deferred(self._settings):
            return lines
        records = map(decider(self._settings), map(json_object, lines))
        return (metadata(record, name_of(record, self._format)) + b"\n" for record in records)

    def is_finished(self) -> bool:
        """Whether the records are joined."""
        return self._metadata.exists()

    def _is_joined(self) -> bool:
        try:
            with self._metadata.open("rb") as lines:
                names, length = whole_lines(lines, self._format)
                size = os.fstat(lines.fileno()).st_size
        except FileNotFoundError:
            return False
        return len(names) == run_file.count(self._settings) and length == size

    def close(self) -> None:
        """End the threads."""
        self._pool.shutdown()


class UnfinishedFolder:
    """A shard that this process is making, whose records become `path`; see `Unfinished`."""

    def __init__(
        self,
        out: Path,
        path: Path,
        format: ImageFormat,
        pool: ThreadPoolExecutor,
        is_whole: Callable[[], bool],
    ) -> None:
        self._out, self._path, self._format = out, path, format
        self._pool, self._is_whole = pool, is_whole
        self._grown, self._suffix = own(path), own_suffix()
        self._lines: IO[bytes] = self._grown.open("wb")

    def add(self, records: Sequence[Mapping[str, Any]], images: Sequence[bytes]) -> None:
        """Write the images, and their records."""
        names = [name_of(record, self._format) for record in records]
        write_images(self._pool, self._out, names, images, self._path.parent, self._suffix)
        for record, name in zip(records, names, strict=True):
            self._lines.write(metadata(record, name) + b"\n")

    def publish(self) -> None:
        """Give the records their final name."""
        self._lines.flush()
        os.fsync(self._lines.fileno())
        self._lines.close()
        publish(self._grown, self._path, self._is_whole)

    def discard(self) -> None:
        """Remove the records; the images stay, and are written again."""
        self._lines.close()
        self._grown.unlink(missing_ok=True)
