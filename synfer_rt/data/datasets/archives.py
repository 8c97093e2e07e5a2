"""Tar and zip files, read in place.

Members are read by their position; their names are only reported and never used as paths.
"""

from __future__ import annotations

import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from functools import lru_cache, partial
from pathlib import Path

from synfer_rt.data.datasets.items import Read, Skipped

TAR, ZIP = ".tar", ".zip"
COMPRESSED = (".tgz", ".tbz2", ".txz", ".tar.gz", ".tar.bz2", ".tar.xz", ".tar.zst", ".tar.lz4")
"""Suffixes of compressed tar files. They are not read: to reach a member, all before it must be
decompressed."""
_MAGIC = {
    b"\x1f\x8b": "gzip -d",
    b"BZh": "bzip2 -d",
    b"\xfd7zXZ\x00": "xz -d",
    b"\x28\xb5\x2f\xfd": "zstd -d",
    b"\x04\x22\x4d\x18": "lz4 -d",
}
"""The first bytes of compressed files, and the command that decompresses them."""
_LARGEST = 1 << 30
"""The most bytes of one file in a zip file: a small zip file can hold a huge one."""
_ENCRYPTED = 1


def is_archive(file: Path) -> bool:
    """Whether a file has the suffix of a tar file, compressed or not, or of a zip file."""
    return file.name.lower().endswith((TAR, ZIP, *COMPRESSED))


def members_of(file: Path, shard: str) -> Iterator[tuple[str, Read] | Skipped]:
    """The files in an archive, each by its name with what reads it; or what is not used.

    Hidden files are passed over, as in folders (see find_images). `shard` is the name of the
    archive in its dataset.
    """
    for found in (_zip if file.suffix.lower() == ZIP else _tar)(file, shard):
        if isinstance(found, Skipped) or not _hidden(found[0]):
            yield found


def _tar(file: Path, shard: str) -> Iterator[tuple[str, Read] | Skipped]:
    try:
        size = file.stat().st_size
        with file.open("rb") as stream:
            start = stream.read(6)
        for magic, command in _MAGIC.items():
            if start.startswith(magic):
                yield Skipped(
                    shard, f"it is compressed; decompress it first with {command} {shard}"
                )
                return
        with tarfile.open(file, "r:") as tar:
            for member in tar:
                # The bytes of a sparse file are not contiguous.
                plain = member.isfile() and not member.issparse()
                if member.isdir():
                    continue
                if not plain or not 0 <= member.size <= size - member.offset_data:
                    problem = "it is cut short" if plain else "it is not a regular file"
                    yield Skipped(f"{shard}/{member.name}", problem)
                    continue
                yield _name(member.name), partial(_at, file, member)
    except Exception as error:  # tarfile trusts a damaged header, so any error can follow
        yield Skipped(shard, f"it is not a whole, uncompressed tar file ({error})")


def _name(written: str) -> str:
    return written.removeprefix("./").lstrip("/")


def _hidden(name: str) -> bool:
    """Whether a file of this name is passed over in folders, too (see find_images)."""
    *folders, file = name.split("/")
    return file.startswith(".") or any(
        folder.startswith((".", "__")) and folder != ".." for folder in folders
    )


def _at(file: Path, member: tarfile.TarInfo) -> bytes:
    with file.open("rb") as stream:
        stream.seek(member.offset_data)
        return stream.read(member.size)


def _zip(file: Path, shard: str) -> Iterator[tuple[str, Read] | Skipped]:
    try:
        members = _opened_zip(file, file.stat().st_mtime_ns).infolist()
    except (OSError, ValueError, NotImplementedError, zipfile.BadZipFile) as error:
        yield Skipped(shard, f"it is not a whole zip file ({error})")
        return
    for member in members:
        name = _name(member.filename)
        if member.is_dir():
            continue
        if member.flag_bits & _ENCRYPTED:
            yield Skipped(f"{shard}/{name}", "it is encrypted; unpack the zip file")
        elif member.file_size > _LARGEST:
            yield Skipped(
                f"{shard}/{name}", f"it is too large: it unpacks to {member.file_size} bytes"
            )
        else:
            yield name, partial(_unzipped, file, file.stat().st_mtime_ns, member)


@lru_cache(maxsize=16)
def _opened_zip(file: Path, changed: int) -> zipfile.ZipFile:
    return zipfile.ZipFile(file)


def _unzipped(file: Path, changed: int, member: zipfile.ZipInfo) -> bytes:
    try:
        return _opened_zip(file, changed).read(member)
    except (zipfile.BadZipFile, zlib.error, NotImplementedError, EOFError) as error:
        raise OSError(f"the zip file is damaged: {error}") from None
