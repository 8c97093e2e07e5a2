"""Datasets in tars and zips, read in place: WebDataset's shards, and class folders inside.

Archives are read by position; the names in them are labels for reports and never paths.
"""

from __future__ import annotations

import json
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path, PurePosixPath
from typing import Any

from synfer_rt.datasets.boxes import NOT_USED, as_said
from synfer_rt.datasets.class_folders import ClassFolders, with_folder
from synfer_rt.datasets.columns import Columns, by_key, columns_of, survey
from synfer_rt.datasets.folders import loose_images
from synfer_rt.datasets.items import (
    IMAGES,
    UNLABELLED,
    Found,
    Item,
    Label,
    Skipped,
    label_of,
)
from synfer_rt.datasets.splits import split_of_path

TAR, ZIP = ".tar", ".zip"
COMPRESSED = (".tgz", ".tbz2", ".txz", ".tar.gz", ".tar.bz2", ".tar.xz", ".tar.zst", ".tar.lz4")
"""Of tars. They are not read: whatever is wanted of one, all before it must be decompressed."""
_MAGIC = {
    b"\x1f\x8b": "gzip -d",
    b"BZh": "bzip2 -d",
    b"\xfd7zXZ\x00": "xz -d",
    b"\x28\xb5\x2f\xfd": "zstd -d",
    b"\x04\x22\x4d\x18": "lz4 -d",
}
"""How files that are compressed begin, and what decompresses them."""
_LARGEST = 1 << 30
"""Bytes of one file in a zip: a small zip can hold a huge one."""
_ENCRYPTED = 1
_TABLES = (".csv", ".tsv", ".jsonl", ".parquet", ".xlsx")

Read = Callable[[], bytes]


@dataclass(frozen=True)
class _Sample:
    """What an archive has of one image: its own file, and texts beside it by their extension."""

    name: str
    image: Read
    texts: Mapping[str, Read]


def is_archive(file: Path) -> bool:
    """Whether a file is called as a tar or zip, compressed or not."""
    return file.name.lower().endswith((TAR, ZIP, *COMPRESSED))


def webdataset(root: Path, files: Sequence[Path], label_scheme: str | None) -> Found:
    """Tars (or zips) of `key.png`, `key.json` and `key.cls`; the label in the JSON goes first.

    Where neither has one that is understood, it is that of the image's folder in the archive.
    """
    for file in filter(is_archive, files):
        shard = file.relative_to(root).as_posix()
        members: dict[str, Read] = {}
        for found in (_zip if file.suffix.lower() == ZIP else _tar)(file, shard):
            if isinstance(found, Skipped):
                yield found
                continue
            name, read = found
            if name in members:
                why = "another file has its name there already, and the first counts"
                yield Skipped(f"{shard}/{name}", why)
            members.setdefault(name, read)
        yield from _items(file, shard, members, label_scheme)
    yield from loose_images(root, files, "archives")


def _tar(file: Path, shard: str) -> Iterator[tuple[str, Read] | Skipped]:
    try:
        size = file.stat().st_size
        with file.open("rb") as stream:
            start = stream.read(6)
        for magic, command in _MAGIC.items():
            if start.startswith(magic):
                yield Skipped(shard, f"it is compressed; decompress it first, by {command} {shard}")
                return
        with tarfile.open(file, "r:") as tar:
            for member in tar:
                # A sparse file's bytes do not lie together.
                plain = member.isfile() and not member.issparse()
                if member.isdir():
                    continue
                if not plain or not 0 <= member.size <= size - member.offset_data:
                    problem = "it is cut short" if plain else "it is no plain file"
                    yield Skipped(f"{shard}/{member.name}", problem)
                    continue
                yield _name(member.name), partial(_at, file, member)
    except Exception as error:  # what is in a damaged header, tarfile takes at its word
        yield Skipped(shard, f"it is no whole, uncompressed tar ({error})")


def _name(written: str) -> str:
    return written.removeprefix("./").lstrip("/")


def _at(file: Path, member: tarfile.TarInfo) -> bytes:
    with file.open("rb") as stream:
        stream.seek(member.offset_data)
        return stream.read(member.size)


def _zip(file: Path, shard: str) -> Iterator[tuple[str, Read] | Skipped]:
    try:
        members = _opened_zip(file, file.stat().st_mtime_ns).infolist()
    except (OSError, ValueError, NotImplementedError, zipfile.BadZipFile) as error:
        yield Skipped(shard, f"it is no whole zip ({error})")
        return
    for member in members:
        name = _name(member.filename)
        if member.is_dir() or name.startswith("__MACOSX/"):
            continue
        if member.flag_bits & _ENCRYPTED:
            yield Skipped(f"{shard}/{name}", "it is encrypted; unpack the zip")
        elif member.file_size > _LARGEST:
            yield Skipped(f"{shard}/{name}", f"it says that it has {member.file_size} bytes")
        else:
            yield name, partial(_unzipped, file, file.stat().st_mtime_ns, member)


@lru_cache(maxsize=16)
def _opened_zip(file: Path, changed: int) -> zipfile.ZipFile:
    return zipfile.ZipFile(file)


def _unzipped(file: Path, changed: int, member: zipfile.ZipInfo) -> bytes:
    try:
        return _opened_zip(file, changed).read(member)
    except (zipfile.BadZipFile, zlib.error, NotImplementedError, EOFError) as error:
        raise OSError(f"the zip is damaged there: {error}") from None


def _items(
    file: Path, shard: str, members: Mapping[str, Read], label_scheme: str | None
) -> Iterator[Item | Skipped]:
    samples: list[_Sample] = []
    for found in _samples(shard, members):
        if isinstance(found, Skipped):
            yield found
        else:
            samples.append(found)
    records = [_record(sample.texts) for sample in samples]
    values = survey(record for record in records if record is not None)
    columns = columns_of(tuple(values), values)
    said = [
        _label(sample, record, columns, label_scheme)
        for sample, record in zip(samples, records, strict=True)
    ]
    inside = PurePosixPath(shard).with_suffix("")
    labels = _with_folders(said, [f"{inside}/{sample.name}" for sample in samples], label_scheme)
    for sample, record, label in zip(samples, records, labels, strict=True):
        name = f"{shard}/{sample.name}"
        split = columns.split_of(record or {}) or split_of_path(name)
        label = Label(None, columns.problem) if label == UNLABELLED else label
        item = Item(name, *label, split, file, sample.image)
        yield from as_said(item, columns.box_of(record or {}))
    if columns.unused_box is not None:
        yield Skipped(shard, NOT_USED.format(columns.unused_box))
    if UNLABELLED in labels and columns.problem is not None:
        yield Skipped(shard, f"of its JSON {columns.problem}")


def _with_folders(
    said: Sequence[Label], names: Sequence[str], label_scheme: str | None
) -> list[Label]:
    """The labels of images by what is said of each and by their folders in the archive.

    Raises UserError for a folder beside those of classes that seems to be a misspelt one.
    """
    folders = ClassFolders(names, label_scheme)
    of_folders = list(map(folders.label, names))
    found = [with_folder(own, folder) for own, folder in zip(said, of_folders, strict=True)]
    if not any(new.name and not own.name for new, own in zip(found, said, strict=True)):
        return found
    folders.check_spelling(names)
    return [
        folder if label == UNLABELLED else label
        for label, folder in zip(found, of_folders, strict=True)
    ]


def _samples(shard: str, members: Mapping[str, Read]) -> Iterator[_Sample | Skipped]:
    """The samples of an archive: what has the same name up to the first dot in its last part."""
    keyed: dict[str, dict[str, str]] = {}
    for name in members:
        folder, _, last = name.rpartition("/")
        stem, _, extension = last.partition(".")
        keyed.setdefault(f"{folder}/{stem}".lstrip("/"), {})[extension.lower()] = name
    for sample, files in keyed.items():
        texts = {end: members[files[end]] for end in ("json", "cls") if end in files}
        images = [end for end in files if f".{end.rpartition('.')[2]}" in IMAGES]
        images.sort(key=lambda end: "." in end)
        if not images:
            yield Skipped(f"{shard}/{sample}", _no_image(files.values()))
        elif len(images) > 1 and not texts:  # no sample, but images with a dot in their names
            for end in images:
                yield _Sample(files[end], members[files[end]], {})
        else:
            yield _Sample(sample, members[files[images[0]]], texts)
            for end in images[1:]:
                why = f"{files[images[0]]} is the image of its sample, and it is not used"
                yield Skipped(f"{shard}/{files[end]}", why)


def _no_image(names: Any) -> str:
    if any(name.lower().endswith(_TABLES) for name in names):
        return "it is a table in an archive; unpack the archive to use its labels"
    return "it has no image"


def _record(texts: Mapping[str, Read]) -> Mapping[str, Any] | None:
    """The JSON of a sample by its keys; None where it cannot be read."""
    try:
        record = json.loads(texts["json"]()) if "json" in texts else {}
        return by_key(record)
    except (OSError, ValueError, AttributeError, RecursionError):
        return None


def _label(
    sample: _Sample, record: Mapping[str, Any] | None, columns: Columns, label_scheme: str | None
) -> Label:
    if record is None:
        return Label(None, "its JSON cannot be read", "")
    label = columns.label(record, label_scheme)
    if label == UNLABELLED and "cls" in sample.texts:
        try:
            return label_of(sample.texts["cls"]().decode("utf-8-sig", "replace"), label_scheme)
        except OSError as error:
            return Label(None, f"its class cannot be read ({error})")
    return label
