"""The webdataset format: tar shards of `<index>.png`, `<index>.json` and `<index>.cls`.

Images may also be `<index>.jpg` or `<index>.webp`.

A shard grows under a temporary name in the run's own folder and is renamed when whole. Its bytes
depend on nothing but the samples (no times, users or machine). A tar only grows at its end, so a
run that was killed continues within the shard that it was writing. `.cls` is the label's index in
its scheme.
"""

from __future__ import annotations

import os
import tarfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from synfer_rt.data.image_format import PNG, ImageFormat, of_settings
from synfer_rt.data.writers import run_file
from synfer_rt.data.writers.atomic import (
    commit,
    disk_errors,
    open_growing,
    own,
    partial,
    publish,
)
from synfer_rt.data.writers.image_check import problem
from synfer_rt.data.writers.shards import joined
from synfer_rt.records import Record, json_object, metadata
from synfer_rt.vocabulary.label_schemes import scheme

_RECORD, _CLASS = "json", "cls"
_END = bytes(2 * tarfile.BLOCKSIZE)
_SIZE, _CHECKSUM = slice(124, 136), slice(148, 156)
"""Fields of a tar header (POSIX.1-1988, ustar); the name comes first."""
_HEADER = bytearray(tarfile.TarInfo().tobuf(tarfile.USTAR_FORMAT))
_HEADER[_SIZE], _HEADER[_CHECKSUM] = bytes(12), b" " * 8
_SUM = sum(_HEADER)  # the checksum counts its own field as spaces


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
                self._file.write(_sample(record, image, self.image_format))
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
            _end(self._file)
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
            self._file.write(_sample(record, image, self._format.images))

    def publish(self) -> None:
        """Give the file its final name."""
        if self._format.convert is None:
            _end(self._file)
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


def _end(file: IO[bytes]) -> None:
    """Write the end of a tar."""
    file.write(_END)
    file.write(bytes(-file.tell() % tarfile.RECORDSIZE))


def name_of(number: int) -> str:
    """The file name of a shard."""
    return f"{number:06d}.tar"


def kinds(format: ImageFormat) -> tuple[str, str, str]:
    """The files of a sample, by what follows the key: its image, its record, its class."""
    return format.suffix, _RECORD, _CLASS


def line(record: Mapping[str, Any], format: ImageFormat) -> bytes:
    """A sample's record as it is in a tar."""
    return metadata(record, f"{record['index']:08d}.{format.suffix}")


def _sample(record: Mapping[str, Any], image: bytes, format: ImageFormat) -> bytes:
    """The three tar members of a sample."""
    key = f"{record['index']:08d}"
    index = scheme(record["label_scheme"]).index(record["label"])
    return (
        _member(f"{key}.{format.suffix}", image)
        + _member(f"{key}.{_RECORD}", line(record, format))
        + _member(f"{key}.{_CLASS}", str(index).encode())
    )


def _member(name: str, data: bytes) -> bytes:
    """A file as tarfile would write it (ustar): mode 0644, no time, user or group."""
    header, written, size = bytearray(_HEADER), name.encode(), b"%011o\0" % len(data)
    assert len(written) <= tarfile.LENGTH_NAME, name
    header[: len(written)] = written
    header[_SIZE] = size
    header[_CHECKSUM] = b"%06o\0 " % (_SUM + sum(written) + sum(size))
    return b"".join((header, data, bytes(-len(data) % tarfile.BLOCKSIZE)))


def members(file: IO[bytes]) -> Iterator[tuple[str, bytes]]:
    """The leading members that are whole; a torn one ends the iteration."""
    while True:
        try:
            info = tarfile.TarInfo.frombuf(file.read(tarfile.BLOCKSIZE), "utf-8", "strict")
        except tarfile.HeaderError:
            return
        stored = file.read(info.size + -info.size % tarfile.BLOCKSIZE)
        if len(stored) < info.size + -info.size % tarfile.BLOCKSIZE:
            return
        yield info.name, stored[: info.size]


def samples(file: IO[bytes]) -> Iterator[tuple[Record, bytes, int]]:
    """The leading whole samples of a tar: record, image bytes, position of the sample's end."""
    found = members(file)
    for (_, image), (_, text), _ in zip(found, found, found, strict=False):
        try:
            record = json_object(text)
        except ValueError:
            return
        yield record, image, file.tell()


def _records(path: Path) -> Iterator[Record]:
    """The records of a whole tar; images are skipped."""
    with path.open("rb") as file:
        while any(header := file.read(tarfile.BLOCKSIZE)):
            info = tarfile.TarInfo.frombuf(header, "utf-8", "strict")
            padding = -info.size % tarfile.BLOCKSIZE
            if info.name.endswith(f".{_RECORD}"):
                yield json_object(file.read(info.size))
                file.seek(padding, os.SEEK_CUR)
            else:
                file.seek(info.size + padding, os.SEEK_CUR)


def _is_whole_tar(path: Path, samples: int) -> bool:
    """Whether a tar has three members for each of so many samples, and is as long as it should be.

    No data is read.
    """
    try:
        with path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            for _ in range(3 * samples):
                info = tarfile.TarInfo.frombuf(file.read(tarfile.BLOCKSIZE), "utf-8", "strict")
                file.seek(info.size + -info.size % tarfile.BLOCKSIZE, os.SEEK_CUR)
            end = file.tell() + len(_END)
            return size == end + -end % tarfile.RECORDSIZE and not any(file.read(len(_END)))
    except (OSError, tarfile.HeaderError):
        return False


def _has_end(file: IO[bytes], indices: range) -> bool:
    """Whether a tar ends with the last of its samples; only its last bytes are read.

    Behind the last member, `.cls`, are zeros up to a multiple of RECORDSIZE.
    """
    size = file.seek(0, os.SEEK_END)
    if size % tarfile.RECORDSIZE or not size:
        return False
    longest = tarfile.RECORDSIZE + len(_END) + 2 * tarfile.BLOCKSIZE
    file.seek(-min(size, longest), os.SEEK_END)
    tail = file.read(longest)
    zeros = (len(tail) - len(tail.rstrip(b"\0"))) // tarfile.BLOCKSIZE * tarfile.BLOCKSIZE
    end = len(tail) - zeros
    header = tail[max(end - 2 * tarfile.BLOCKSIZE, 0) : max(end - tarfile.BLOCKSIZE, 0)]
    try:
        name = tarfile.TarInfo.frombuf(header, "utf-8", "strict").name
    except tarfile.HeaderError:
        return False
    return zeros >= len(_END) and name == f"{indices[-1]:08d}.{_CLASS}"


def read(out: Path) -> Iterator[tuple[Record, bytes]]:
    """Every sample of a finished run, by index: its record and its image file's bytes."""
    for path in sorted(out.glob("*.tar")):
        yield from read_tar(path)


def read_tar(path: Path) -> Iterator[tuple[Record, bytes]]:
    """Every whole sample of a tar: its record and its image file's bytes."""
    with path.open("rb") as file:
        for record, image, _ in samples(file):
            yield record, image


def shard_format(settings: Mapping[str, Any], name: Callable[[int], str] = name_of) -> ShardFormat:
    """How the shards of a run are written: `OUT/000000.tar`, `OUT/000001.tar`, …"""
    images = of_settings(settings)
    return ShardFormat(name, _records, read_tar, _is_whole_tar, _has_end, name, images=images)
