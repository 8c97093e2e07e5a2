"""Samples in a tar: `<index>.png`, `<index>.json` and `<index>.cls`, byte by byte.

The bytes depend on nothing but the samples: no times, users or machine.
"""

from __future__ import annotations

import os
import tarfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, Any

from synfer_rt.data.image_format import ImageFormat
from synfer_rt.records import Record, json_object, metadata
from synfer_rt.vocabulary.label_schemes import scheme

_RECORD, _CLASS = "json", "cls"
END = bytes(2 * tarfile.BLOCKSIZE)
"""How a tar ends, before zeros up to a multiple of RECORDSIZE."""
_SIZE, _CHECKSUM = slice(124, 136), slice(148, 156)
"""Fields of a tar header (POSIX.1-1988, ustar); the name comes first."""
_HEADER = bytearray(tarfile.TarInfo().tobuf(tarfile.USTAR_FORMAT))
_HEADER[_SIZE], _HEADER[_CHECKSUM] = bytes(12), b" " * 8
_SUM = sum(_HEADER)  # the checksum counts its own field as spaces


def write_end(file: IO[bytes]) -> None:
    """Write the end of a tar."""
    file.write(END)
    file.write(bytes(-file.tell() % tarfile.RECORDSIZE))


def kinds(format: ImageFormat) -> tuple[str, str, str]:
    """The files of a sample, by what follows the key: its image, its record, its class."""
    return format.suffix, _RECORD, _CLASS


def line(record: Mapping[str, Any], format: ImageFormat) -> bytes:
    """A sample's record as it is in a tar."""
    return metadata(record, f"{record['index']:08d}.{format.suffix}")


def tar_sample(record: Mapping[str, Any], image: bytes, format: ImageFormat) -> bytes:
    """The three tar members of a sample."""
    key = f"{record['index']:08d}"
    index = scheme(record["label_scheme"]).index(record["label"])
    return (
        member(f"{key}.{format.suffix}", image)
        + member(f"{key}.{_RECORD}", line(record, format))
        + member(f"{key}.{_CLASS}", str(index).encode())
    )


def member(name: str, data: bytes) -> bytes:
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


def records_of(path: Path) -> Iterator[Record]:
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


def is_whole(path: Path, samples: int) -> bool:
    """Whether a tar has three members for each of so many samples, and is as long as it should be.

    No data is read.
    """
    try:
        with path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            for _ in range(3 * samples):
                info = tarfile.TarInfo.frombuf(file.read(tarfile.BLOCKSIZE), "utf-8", "strict")
                file.seek(info.size + -info.size % tarfile.BLOCKSIZE, os.SEEK_CUR)
            end = file.tell() + len(END)
            return size == end + -end % tarfile.RECORDSIZE and not any(file.read(len(END)))
    except (OSError, tarfile.HeaderError):
        return False


def has_end(file: IO[bytes], indices: range) -> bool:
    """Whether a tar ends with the last of its samples; only its last bytes are read.

    Behind the last member, `.cls`, are zeros up to a multiple of RECORDSIZE.
    """
    size = file.seek(0, os.SEEK_END)
    if size % tarfile.RECORDSIZE or not size:
        return False
    longest = tarfile.RECORDSIZE + len(END) + 2 * tarfile.BLOCKSIZE
    file.seek(-min(size, longest), os.SEEK_END)
    tail = file.read(longest)
    zeros = (len(tail) - len(tail.rstrip(b"\0"))) // tarfile.BLOCKSIZE * tarfile.BLOCKSIZE
    end = len(tail) - zeros
    header = tail[max(end - 2 * tarfile.BLOCKSIZE, 0) : max(end - tarfile.BLOCKSIZE, 0)]
    try:
        name = tarfile.TarInfo.frombuf(header, "utf-8", "strict").name
    except tarfile.HeaderError:
        return False
    return zeros >= len(END) and name == f"{indices[-1]:08d}.{_CLASS}"


def read_tar(path: Path) -> Iterator[tuple[Record, bytes]]:
    """Every whole sample of a tar: its record and its image file's bytes."""
    with path.open("rb") as file:
        for record, image, _ in samples(file):
            yield record, image
