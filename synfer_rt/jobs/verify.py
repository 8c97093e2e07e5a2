"""Whether an output is what its run.json says: all images there, whole, labelled as they lie."""

from __future__ import annotations

import json
import math
import os
import tarfile
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from synfer_rt.data.writers import imagefolder, parquet, run_file, webdataset
from synfer_rt.data.writers.atomic import partial
from synfer_rt.data.writers.png_check import problem
from synfer_rt.errors import UserError
from synfer_rt.vocabulary.label_schemes import scheme

_TOLERANCE = 1e-3
"""How far probabilities may be from a sum of 1: each is rounded to six decimals."""


@dataclass(frozen=True)
class Fault:
    """What is wrong with an output, and where: a file, with its line, row or key."""

    place: str
    problem: str


@dataclass(frozen=True)
class _Entry:
    """A sample as it was found. `png` is None where a fault has said that it is not there.

    `folder` and `number` are what else says the label: where the image lies, and `.cls`.
    """

    place: str
    record: Any
    png: bytes | None
    folder: str | None = None
    number: bytes | None = None


_Found = Iterator[_Entry | Fault]


def settings_of(out: Path) -> dict[str, Any]:
    """The settings of the run in `out`. Raises UserError where none are, or they are damaged."""
    if not run_file.exists(out):
        raise UserError(
            f"{out} holds no run of synfer-rt ({run_file.path(out)} is not there); give what "
            "--out was, with the folder beside it."
        )
    settings = run_file.load(out)
    try:
        sound = (
            settings["format"] in _ENTRIES
            and run_file.count(settings) >= 0
            and int(settings["shard_size"]) > 0
            and all(isinstance(name, str) for name in settings["classes"])
        )
    except (KeyError, TypeError, ValueError):
        sound = False
    if not sound:
        raise UserError(
            f"{run_file.path(out)} is damaged; put it back as it was, or make the run again with "
            "another --out."
        )
    return settings


def faults(
    out: Path, settings: Mapping[str, Any], on_progress: Callable[[int], None] = lambda images: None
) -> Iterator[Fault]:
    """Everything that is wrong with the run in `out`, as it is found; all of it is read.

    `on_progress` is told how many images have been read.
    """
    count, classes = run_file.count(settings), list(settings["classes"])
    growing = sorted(run_file.growing(out))
    seen: dict[int, str] = {}
    read = 0
    for found in _ENTRIES[settings["format"]](out, settings):
        if isinstance(found, Fault):
            yield found
            continue
        read += 1
        on_progress(read)
        for what in _problems(found, classes):
            yield Fault(found.place, what)
        index = found.record.get("index") if isinstance(found.record, dict) else None
        if not isinstance(index, int) or not 0 <= index < count:
            yield Fault(found.place, f"its index is none of 0 to {count - 1}: {index!r}")
        elif index in seen:
            yield Fault(found.place, f"the index {index} is there twice, also at {seen[index]}")
        else:
            seen[index] = found.place
    for file in growing:
        yield Fault(str(file), "it is not whole yet")
    # Of a run that goes on, what comes after the last image is not missing.
    stop = max(seen, default=-1) + 1 if growing else count
    if missing := [index for index in range(stop) if index not in seen]:
        yield Fault(str(out), f"{len(missing)} of {stop} images are not there: {_spans(missing)}")


def _problems(entry: _Entry, classes: list[str]) -> Iterator[str]:
    """What is wrong with one sample but for its index."""
    if entry.png is not None and (damage := problem(entry.png)):
        yield f"its image: {damage}"
    record = entry.record
    if not isinstance(record, dict):
        yield "its record cannot be read"
        return
    label = record.get("label")
    if label not in classes:
        yield f"its label is no class of the run: {label!r}"
    elif entry.folder is not None and entry.folder != label:
        yield f"its label is {label}, and it lies in the folder {entry.folder}"
    elif entry.number is not None and (said := _class_of(entry.number, record)) != label:
        yield f"its label is {label}, and its .cls says {said}"
    asked = record.get("requested_label")
    if bool(record.get("rectified")) != (label != asked):
        yield f"its label is {label} and {asked} was requested, but rectified says otherwise"
    yield from _wrong_numbers(record)


def _class_of(number: bytes, record: Mapping[str, Any]) -> str:
    try:
        return scheme(record["label_scheme"])[int(number)]
    except (KeyError, IndexError, TypeError, ValueError, UserError):
        return repr(number.decode("utf-8", "replace"))


def _wrong_numbers(record: Mapping[str, Any]) -> Iterator[str]:
    for name, value in record.items():
        fields = value if isinstance(value, dict) else {"": value}
        for key, number in fields.items():
            what = f"{name} of {key}" if key else name
            if isinstance(number, float) and not math.isfinite(number):
                yield f"{what} is {number}"
            elif name in ("probabilities", "aus") and not _is_share(number):
                yield f"{what} is no number of 0 to 1: {number!r}"
    shares = record.get("probabilities")
    if not isinstance(shares, dict):
        yield f"its probabilities are no numbers by class: {shares!r}"
    elif all(map(_is_share, shares.values())):
        total = sum(shares.values())
        if total and abs(total - 1) > _TOLERANCE:
            yield f"its probabilities add up to {total:g}"


def _is_share(value: Any) -> bool:
    return isinstance(value, float | int) and 0 <= value <= 1


def _spans(indices: Iterable[int]) -> str:
    """Rising indices in words: 3, 7 to 9."""
    spans: list[list[int]] = []
    for index in indices:
        if spans and index == spans[-1][1] + 1:
            spans[-1][1] = index
        else:
            spans.append([index, index])
    words = [str(a) if a == b else f"{a} to {b}" for a, b in spans[:20]]
    return ", ".join(words) + (" and more" if len(spans) > 20 else "")


def _imagefolder(out: Path, settings: Mapping[str, Any]) -> _Found:
    metadata = out / imagefolder.METADATA
    journal = partial(run_file.path(out).with_name(imagefolder.METADATA))
    listed = metadata if metadata.exists() else journal
    if not listed.exists():
        yield Fault(imagefolder.METADATA, "it is not there")
        return
    named: set[str] = set()
    lost: Counter[str] = Counter()
    with listed.open("rb") as lines:
        for number, line in enumerate(lines, 1):
            place = f"{listed.name} line {number}"
            try:
                record = json.loads(line)
                name, expected = record["file_name"], imagefolder.name_of(record)
            except (ValueError, LookupError, TypeError, RecursionError):
                yield Fault(place, "it is no record of an image")
                continue
            folder, _, file_name = str(name).partition("/")
            if file_name != expected.rpartition("/")[2] or folder not in settings["classes"]:
                yield Fault(place, f"it names {name!r}, where {expected} belongs")
                continue
            named.add(name)
            png = None
            if not (out / folder).is_dir():
                lost[folder] += 1
            elif not (out / name).is_file():
                yield Fault(place, f"its image {name} is not there")
            else:
                png = (out / name).read_bytes()
            yield _Entry(f"{name} ({place})", record, png, folder)
    for folder, images in lost.items():
        yield Fault(f"{folder}/", f"the class folder is not there, nor its {images} images")
    if listed == metadata:
        yield from _strays(out, named | {metadata.name}, "no line of metadata.jsonl names it")


def _strays(out: Path, known: set[str], why: str) -> Iterator[Fault]:
    """The files of an output that are not `known`, given by their paths in it, and the folders.

    A folder is a class to some readers, empty or not; hidden files are nothing to any.
    """
    if run_file.path(out) == out / run_file.FILE:  # as older releases wrote it
        known = known | {run_file.FILE, run_file.OLD_SHEET, "skipped.jsonl"}
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
    entries: Callable[[Path], _Found],
) -> _Found:
    shards = -(-run_file.count(settings) // int(settings["shard_size"]))
    names = [name_of(number) for number in range(shards)]
    present = [number for number, name in enumerate(names) if (out / name).is_file()]
    growing = any(run_file.growing(out))
    for number, name in enumerate(names):
        if (out / name).is_file():
            yield from entries(out / name)
        elif not growing or number < max(present, default=0):
            yield Fault(name, "it is not there")
    yield from _strays(out, set(names), "it is no shard of the run")


def _webdataset(out: Path, settings: Mapping[str, Any]) -> _Found:
    return _shards(out, settings, webdataset.name_of, _tar)


def _tar(path: Path) -> _Found:
    key, files, end = "", {}, 0
    with path.open("rb") as file:
        for name, data in webdataset.members(file):
            own, _, kind = name.partition(".")
            if own != key:
                yield from _tar_sample(path.name, key, files)
                key, files = own, {}
            if kind in files:
                yield Fault(f"{path.name}/{name}", "it is there twice")
            files[kind], end = data, file.tell()
        file.seek(end)
        rest = file.read(2 * tarfile.BLOCKSIZE)
    cut = len(rest) < 2 * tarfile.BLOCKSIZE or any(rest)
    if not cut or len(files) >= len(webdataset.KINDS):
        yield from _tar_sample(path.name, key, files)
    if cut:
        yield Fault(path.name, f"it is cut short or damaged after {key or 'its beginning'}")


def _tar_sample(shard: str, key: str, files: Mapping[str, bytes]) -> _Found:
    place = f"{shard}/{key}"
    for kind in files.keys() - set(webdataset.KINDS):
        yield Fault(f"{place}.{kind}", "it is no file of a sample")
    lacking = [f".{kind}" for kind in webdataset.KINDS if kind not in files] if files else []
    if lacking:
        yield Fault(place, f"it lacks its {', '.join(lacking)}")
    if "json" in files:
        try:
            record = json.loads(files["json"])
        except (ValueError, RecursionError):
            record = None
        yield _Entry(place, record, files.get("png"), number=files.get("cls"))


def _parquet(out: Path, settings: Mapping[str, Any]) -> _Found:
    return _shards(out, settings, parquet.name_of, _rows)


def _rows(path: Path) -> _Found:
    try:
        for number, (record, png) in enumerate(parquet.read_shard(path)):
            place = f"{path.name} row {number}"
            if not png:
                yield Fault(place, "its image is not there")
            yield _Entry(place, record, png or None)
    except OSError as error:
        yield Fault(path.name, f"it is cut short or damaged ({str(error).splitlines()[0]})")
    except (KeyError, TypeError):
        yield Fault(path.name, "it has no column image with the images' bytes")


_ENTRIES: dict[str, Callable[[Path, Mapping[str, Any]], _Found]] = {
    "imagefolder": _imagefolder,
    "webdataset": _webdataset,
    "parquet": _parquet,
}
