"""Shards that are files, of a format that says how samples are in them.

A shard is staged in a tar of this process, and published when it is whole.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from synfer_rt.data.image_format import PNG, ImageFormat
from synfer_rt.data.writers import run_file
from synfer_rt.data.writers.atomic import own, publish
from synfer_rt.data.writers.tar_samples import tar_sample, write_end
from synfer_rt.records import Record


@dataclass(frozen=True)
class ShardFormat:
    """A format whose shards are files.

    `name(number)` is the file name of a whole shard, `records(path)` gives the records in it,
    `samples(path)` also the image files, and `is_whole(path, samples)` tells at little cost whether
    it has so many. `has_end(file, indices)` tells of a file that is read from afar whether its last
    bytes are those of a shard with these indices. A shard that is not a tar is staged in one called
    `tar_name(number)`, from which `convert(tar, file)` makes it. `images` is the format of the
    images.
    """

    name: Callable[[int], str]
    records: Callable[[Path], Iterator[Record]]
    samples: Callable[[Path], Iterator[tuple[Record, bytes]]]
    is_whole: Callable[[Path, int], bool]
    has_end: Callable[[IO[bytes], range], bool]
    tar_name: Callable[[int], str]
    convert: Callable[[Path, IO[bytes]], None] | None = None
    images: ImageFormat = PNG


class FileShards:
    """The shards of a run that are files, in its output or in `place`; see `Shards`."""

    def __init__(
        self,
        out: Path,
        settings: Mapping[str, Any],
        format: ShardFormat,
        place: Path | None = None,
    ) -> None:
        self._out, self._settings, self._format = out, settings, format
        self._place = place or out

    def present(self) -> set[int]:
        """The shards whose files are there."""
        numbers = range(run_file.shard_count(self._settings))
        return {number for number in numbers if self.path(number).exists()}

    def is_whole(self, number: int) -> bool:
        """Whether the file has all samples, and its end."""
        samples = len(run_file.shard_indices(self._settings, number))
        return self._format.is_whole(self.path(number), samples)

    def finished_at(self, number: int) -> float | None:
        """When the file was last written to; None if it is gone, since the run was finished."""
        with suppress(FileNotFoundError):
            return self.path(number).stat().st_mtime
        return None

    def records(self, numbers: Iterable[int]) -> Iterator[Record]:
        """The records in these files."""
        for number in numbers:
            yield from self._format.records(self.path(number))

    def samples(self, number: int) -> Iterator[tuple[Record, bytes]]:
        """The whole samples in a file."""
        return self._format.samples(self.path(number))

    def remove(self, number: int) -> None:
        """Remove a file, if it is there."""
        self.path(number).unlink(missing_ok=True)

    def is_finished(self) -> bool:
        """The files are what readers open."""
        return True

    def begin(self, number: int) -> UnfinishedFile:
        """Begin to make it."""
        aside, format = run_file.folder(self._out), self._format
        return UnfinishedFile(
            aside / format.tar_name(number),
            self.path(number),
            format,
            lambda: self.is_whole(number),
        )

    def finish(self) -> None:
        """The files are what readers open."""

    def close(self) -> None:
        """Nothing is held."""

    def path(self, number: int) -> Path:
        """The file of a shard."""
        return self._place / self._format.name(number)


class UnfinishedFile:
    """The shard `path`, staged in a tar of this process beside `staging`; see `Unfinished`."""

    def __init__(
        self, staging: Path, path: Path, format: ShardFormat, is_whole: Callable[[], bool]
    ) -> None:
        self._path, self._format, self._is_whole = path, format, is_whole
        self._tar = self._grown = own(staging)
        if format.convert is not None:
            self._grown = own(staging.with_name(path.name))
        self._file: IO[bytes] = self._tar.open("wb")

    def add(self, records: Sequence[Mapping[str, Any]], images: Sequence[bytes]) -> None:
        """Append the samples."""
        for record, image in zip(records, images, strict=True):
            self._file.write(tar_sample(record, image, self._format.images))

    def publish(self) -> None:
        """Give the file its final name."""
        if self._format.convert is None:
            write_end(self._file)
            _synced(self._file)
        else:
            self._file.flush()
            with self._grown.open("wb") as target:
                self._format.convert(self._tar, target)
                _synced(target)
        publish(self._grown, self._path, self._is_whole)
        self.discard()

    def discard(self) -> None:
        """Remove the files under names of this process."""
        self._file.close()
        for file in {self._tar, self._grown}:
            file.unlink(missing_ok=True)


def _synced(file: IO[bytes]) -> None:
    file.flush()
    os.fsync(file.fileno())
    file.close()
