"""The webdataset format: tar shards of `<index>.png`, `<index>.json` and `<index>.cls`.

A shard grows under a temporary name in the run's own folder and is renamed when whole. Its bytes
depend on nothing but the samples (no times, users or machine), and since a tar only ever grows at
its end, a run that was killed goes on inside the shard it was at. `.cls` is the label's index in
its scheme.
"""

from __future__ import annotations

import io
import json
import os
import tarfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any

from synfer_rt.labels import scheme
from synfer_rt.writers import run_file
from synfer_rt.writers.atomic import commit, disk_errors, open_growing, partial

_END = bytes(2 * tarfile.BLOCKSIZE)


class ShardWriter:
    """Fills tar shards one after another; see `Writer`.

    `name(number)` is a shard's file name when whole, `tar_name(number)` that of the tar that grows,
    `convert(tar, path)` makes the one from the other where they differ, and `read(path)` gives a
    whole shard's samples.
    """

    def __init__(
        self,
        out: Path,
        settings: Mapping[str, Any],
        name: Callable[[int], str],
        read: Callable[[Path], Iterator[tuple[dict[str, Any], bytes]]],
        tar_name: Callable[[int], str] | None = None,
        convert: Callable[[Path, Path], None] | None = None,
    ) -> None:
        self.out, self.count = out, run_file.count(settings)
        self._size, self._read = int(settings["shard_size"]), read
        self._name, self._tar_name, self._convert = name, tar_name or name, convert
        self._folder = run_file.folder(out)
        self._file: IO[bytes] | None = None
        shards = -(-self.count // self._size)
        whole = next((n for n in range(shards) if not self._final(n).exists()), shards)
        self.done = min(whole * self._size, self.count)
        with disk_errors(self._final(whole)):
            for number in range(whole):
                # A kill between the renaming of a converted shard and this leaves its tar.
                partial(self._staging(number)).unlink(missing_ok=True)
            if whole < shards:
                self._open(whole)
                if self.done > whole * self._size and self.done % self._size == 0:
                    self._seal()  # killed between its last sample and its renaming

    def _final(self, number: int) -> Path:
        return self.out / self._name(number)

    def _staging(self, number: int) -> Path:
        return self._folder / self._tar_name(number)

    def _open(self, number: int) -> None:
        """Open the tar of a shard after the last sample that is whole in it."""
        file = open_growing(self._staging(number))
        end = 0
        for record, png, position in samples(file):
            if record["index"] != self.done or not _is_whole_png(png):
                break
            end = position
            self.done += 1
        file.seek(end)
        file.truncate()
        self._file = file

    def records(self) -> Iterator[dict[str, Any]]:
        """The records of the samples that are there."""
        for number in range(-(-self.done // self._size)):
            if self._final(number).exists():
                yield from (record for record, _ in self._read(self._final(number)))
            else:
                with partial(self._staging(number)).open("rb") as file:
                    yield from (record for record, _, _ in samples(file))

    def write(self, records: Sequence[Mapping[str, Any]], pngs: Sequence[bytes]) -> None:
        """Write the next samples in the order of their indices."""
        with disk_errors(self._final(self.done // self._size)):
            for record, png in zip(records, pngs, strict=True):
                if self._file is None:
                    self._open(self.done // self._size)
                assert self._file is not None
                self._file.write(_sample(record, png))
                self.done += 1
                if self.done % self._size == 0:
                    self._seal()
            if self._file is not None:
                self._file.flush()
                os.fsync(self._file.fileno())

    def _seal(self) -> None:
        """Give the open shard its final name."""
        assert self._file is not None
        number = (self.done - 1) // self._size
        if self._convert is None:
            self._file.write(_END)
            self._file.write(bytes(-self._file.tell() % tarfile.RECORDSIZE))
            commit(self._file, self._final(number), self._staging(number))
        else:
            self._file.flush()
            tar = partial(self._staging(number))
            self._convert(tar, self._final(number))
            self._file.close()
            tar.unlink()
        self._file = None

    def finish(self) -> None:
        """Give the last shard its final name."""
        if self._file is not None and self.done % self._size == 0:
            # A run that resumes opens the next shard before it knows that none is to come.
            number = self.done // self._size
            with disk_errors(self._final(number)):
                self._file.close()
                partial(self._staging(number)).unlink()
            self._file = None
        if self.done < self.count:
            run_file.end(self.out, self.done)
            self.count = self.done
        if self._file is not None:
            with disk_errors(self._final(self.done // self._size)):
                self._seal()

    def close(self) -> None:
        """Stop; what is written stays for a run with --resume."""
        if self._file is not None:
            with disk_errors(self._final(self.done // self._size)):
                self._file.close()


class WebDatasetWriter(ShardWriter):
    """Writes `OUT/000000.tar`, `OUT/000001.tar`, …"""

    def __init__(self, out: Path, settings: Mapping[str, Any]) -> None:
        super().__init__(out, settings, lambda number: f"{number:06d}.tar", _read_tar)


def _sample(record: Mapping[str, Any], png: bytes) -> bytes:
    """The three tar members of a sample."""
    key = f"{record['index']:08d}"
    text = json.dumps({"file_name": f"{key}.png", **record}, ensure_ascii=False)
    index = scheme(record["label_scheme"]).index(record["label"])
    return (
        _member(f"{key}.png", png)
        + _member(f"{key}.json", text.encode())
        + _member(f"{key}.cls", str(index).encode())
    )


def _member(name: str, data: bytes) -> bytes:
    info = tarfile.TarInfo(name)  # its defaults: mode 0644, time, user and group 0
    info.size = len(data)
    padding = bytes(-len(data) % tarfile.BLOCKSIZE)
    return info.tobuf(tarfile.USTAR_FORMAT) + data + padding


def _members(file: IO[bytes]) -> Iterator[tuple[str, bytes]]:
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


def samples(file: IO[bytes]) -> Iterator[tuple[dict[str, Any], bytes, int]]:
    """The leading whole samples of a tar: record, PNG bytes, position of the sample's end."""
    members = _members(file)
    for (_, png), (_, text), _ in zip(members, members, members, strict=False):
        try:
            record = json.loads(text)
        except ValueError:
            return
        yield record, png, file.tell()


def _is_whole_png(png: bytes) -> bool:
    """Whether the checksums hold: after a power cut a file's tail can be zeros."""
    from PIL import Image

    try:
        Image.open(io.BytesIO(png)).verify()
    except (OSError, SyntaxError):
        return False
    return True


def read(out: Path) -> Iterator[tuple[dict[str, Any], bytes]]:
    """Every sample of a finished run, by index: its record and its PNG file's bytes."""
    for path in sorted(out.glob("*.tar")):
        yield from _read_tar(path)


def _read_tar(path: Path) -> Iterator[tuple[dict[str, Any], bytes]]:
    with path.open("rb") as file:
        for record, png, _ in samples(file):
            yield record, png
