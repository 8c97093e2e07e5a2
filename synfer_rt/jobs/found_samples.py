"""The samples of an output as they are found, in each format, and what is wrong with its files."""

from __future__ import annotations

import os
import tarfile
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial as partial_of
from pathlib import Path
from typing import Any

from synfer_rt.data.card_files import CARD
from synfer_rt.data.image_format import ImageFormat, of_settings
from synfer_rt.data.storage.objects import Objects
from synfer_rt.data.writers import imagefolder, parquet, run_file, tar_samples, webdataset
from synfer_rt.data.writers.atomic import partial
from synfer_rt.data.writers.stored_shards import fetched
from synfer_rt.data.writers.working_copy import AMONG, samples_of
from synfer_rt.records import FILE_NAME, Record, json_object


@dataclass(frozen=True)
class Fault:
    """What is wrong with an output, and where: a file, with its line, row or key."""

    place: str
    problem: str


@dataclass(frozen=True)
class FoundSample:
    """A sample as it was found.

    `record` is None if it cannot be read, `image` if a fault has said that it is missing. `folder`
    and `number` say the label too: where the image lies, and `.cls`.
    """

    place: str
    record: Record | None
    image: bytes | None
    folder: str | None = None
    number: bytes | None = None


Found = Iterator[FoundSample | Fault]


def _imagefolder(out: Path, settings: Mapping[str, Any]) -> Found:
    metadata = out / imagefolder.METADATA
    journal = partial(run_file.path(out).with_name(imagefolder.METADATA))
    listed = metadata if metadata.exists() else journal
    if not listed.exists():
        parts = any(run_file.unfinished_shards(out))
        joins = "; it is made of the shards when all are there" if parts else ""
        yield Fault(imagefolder.METADATA, f"it is missing{joins}")
        return
    format = of_settings(settings)
    named: set[str] = set()
    lost: Counter[str] = Counter()
    with listed.open("rb") as lines:
        for number, line in enumerate(lines, 1):
            place = f"{listed.name} line {number}"
            record = _record_of(line, settings["classes"], format)
            if isinstance(record, str):
                yield Fault(place, record)
                continue
            name = record[FILE_NAME.name]
            folder, image = name.partition("/")[0], None
            named.add(name)
            if not (out / folder).is_dir():
                lost[folder] += 1
            elif not (out / name).is_file():
                yield Fault(place, f"its image {name} is missing")
            else:
                image = (out / name).read_bytes()
            yield FoundSample(f"{name} ({place})", record, image, folder)
    for folder, images in lost.items():
        yield Fault(f"{folder}/", f"the class folder and its {images} images are missing")
    if listed == metadata:
        yield from _strays(out, named | {metadata.name}, "no line of metadata.jsonl names it")


def _record_of(line: bytes, classes: list[str], format: ImageFormat) -> Record | str:
    """The record of a line of metadata, whose image lies in a class folder; or what is wrong."""
    try:
        record = json_object(line)
        name, expected = record[FILE_NAME.name], imagefolder.name_of(record, format)
    except (ValueError, LookupError, TypeError):
        return "it is not the record of an image"
    folder, _, file_name = str(name).partition("/")
    if file_name != expected.rpartition("/")[2] or folder not in classes:
        return f"it names {name!r} instead of {expected}"
    return record


def _strays(out: Path, known: set[str], why: str) -> Iterator[Fault]:
    """The files of an output that are not `known`, given by their paths in it, and the folders.

    Some readers take a folder for a class, even an empty one; none reads hidden files.
    """
    if run_file.path(out) == out / run_file.FILE:  # as older releases wrote it
        known = known | {run_file.FILE, run_file.OLD_SHEET, "skipped.jsonl"}
    if (out / CARD).is_file():  # a dataset card, whoever wrote it
        known = known | {CARD}
    own, holding = run_file.folder(out), {name.rpartition("/")[0] for name in known}
    for here, folders, names in os.walk(out):
        place = Path(here).relative_to(out)
        for name in sorted(names):
            path = (place / name).as_posix()
            if path not in known and not name.startswith(".") and not name.endswith(".partial"):
                yield Fault(path, why)
        folders[:] = sorted(name for name in folders if Path(here).resolve() / name != own)
        for name in folders.copy():
            path = (place / name).as_posix()
            if path not in holding:
                yield Fault(f"{path}/", "no sample of the run lies in this folder")
                folders.remove(name)


def _shards(
    out: Path,
    settings: Mapping[str, Any],
    name_of: Callable[[int], str],
    samples_of_shard: Callable[[Path], Found],
) -> Found:
    names = [name_of(number) for number in range(run_file.shard_count(settings))]
    if (stored := samples_of(out)) is not None:
        yield from _stored(stored, out, names, samples_of_shard)
        return
    present = [number for number, name in enumerate(names) if (out / name).is_file()]
    growing = any(run_file.growing(out))
    for number, name in enumerate(names):
        if (out / name).is_file():
            yield from samples_of_shard(out / name)
        elif not growing or number < max(present, default=0):
            yield Fault(name, "it is missing")
    yield from _strays(out, set(names), "it is not a shard of the run")


def _stored(
    objects: Objects, out: Path, names: Sequence[str], samples_of_shard: Callable[[Path], Found]
) -> Found:
    """The same of shards in a store, of which one at a time is fetched."""
    there = objects.entries()
    for name in names:
        try:
            if name not in there:
                raise FileNotFoundError(name)
            with fetched(objects, name, out / name) as file:
                yield from _under(name, file.name, samples_of_shard(file))
        except FileNotFoundError:
            yield Fault(name, "it is missing")
    for name in sorted(there.keys() - {*names, *AMONG}):
        if not name.startswith(".") and name != f"{run_file.INSIDE}/":
            yield Fault(name, "it is not a shard of the run")


def _under(name: str, other: str, found: Found) -> Found:
    """What was found in a file, with its name instead of the `other` that the file has here."""
    for one in found:
        yield replace(one, place=one.place.replace(other, name, 1))


def _webdataset(out: Path, settings: Mapping[str, Any]) -> Found:
    kinds = tar_samples.kinds(of_settings(settings))
    return _shards(out, settings, webdataset.name_of, partial_of(_of_tar, kinds))


def _of_tar(kinds: Sequence[str], path: Path) -> Found:
    key, end = "", 0
    files: dict[str, bytes] = {}
    with path.open("rb") as file:
        for name, data in tar_samples.members(file):
            own, _, kind = name.partition(".")
            if own != key:
                yield from _of_members(path.name, key, files, kinds)
                key, files = own, {}
            if kind in files:
                yield Fault(f"{path.name}/{name}", "it occurs twice")
            files[kind], end = data, file.tell()
        file.seek(end)
        rest = file.read(2 * tarfile.BLOCKSIZE)
    cut = len(rest) < 2 * tarfile.BLOCKSIZE or any(rest)
    if not cut or len(files) >= len(kinds):
        yield from _of_members(path.name, key, files, kinds)
    if cut:
        yield Fault(path.name, f"it is cut short or damaged after {key or 'its beginning'}")


def _of_members(shard: str, key: str, files: Mapping[str, bytes], kinds: Sequence[str]) -> Found:
    """The sample of the members that have a key, by what follows it; all `kinds` are wanted."""
    place = f"{shard}/{key}"
    for kind in files.keys() - set(kinds):
        yield Fault(f"{place}.{kind}", "it is not a file of a sample")
    missing = [f".{kind}" for kind in kinds if kind not in files] if files else []
    if missing:
        yield Fault(place, f"its {', '.join(missing)} is missing")
    if "json" in files:
        try:
            record = json_object(files["json"])
        except ValueError:
            record = None
        yield FoundSample(place, record, files.get(kinds[0]), number=files.get("cls"))


def _parquet(out: Path, settings: Mapping[str, Any]) -> Found:
    return _shards(out, settings, parquet.name_of, _of_rows)


def _of_rows(path: Path) -> Found:
    try:
        for number, (record, image) in enumerate(parquet.read_shard(path)):
            place = f"{path.name} row {number}"
            if not image:
                yield Fault(place, "its image is missing")
            yield FoundSample(place, record, image or None)
    except OSError as error:
        yield Fault(path.name, f"it is cut short or damaged ({str(error).splitlines()[0]})")
    except (KeyError, TypeError, AttributeError):
        yield Fault(path.name, "it has no column image with the images' bytes")


SAMPLES: dict[str, Callable[[Path, Mapping[str, Any]], Found]] = {
    "imagefolder": _imagefolder,
    "webdataset": _webdataset,
    "parquet": _parquet,
}
"""The samples and faults of an output with these settings, by its format."""
