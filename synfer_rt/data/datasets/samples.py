"""Samples as WebDataset has them: an image, and what is said of it in files of the same key.

They lie in tars or zips, or as files in folders where a shard was extracted.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Any

from synfer_rt.data.datasets.boxes import NOT_USED, as_said
from synfer_rt.data.datasets.class_folders import ClassFolders, with_folder
from synfer_rt.data.datasets.columns import Columns, by_key, columns_of, survey
from synfer_rt.data.datasets.items import IMAGES, UNLABELLED, Found, Item, Label, Skipped, label_of
from synfer_rt.data.datasets.splits import split_of_path
from synfer_rt.data.writers.run_file import OLD_SHEET

_SIDECARS = (".json", ".cls")
_TABLES = (".csv", ".tsv", ".jsonl", ".parquet", ".xlsx")

Read = Callable[[], bytes]


@dataclass(frozen=True)
class _Sample:
    """An image by its key: its own file, and texts beside it by their extension."""

    key: str
    file: str
    image: Read
    texts: Mapping[str, Read]


def sidecars(root: Path, files: Sequence[Path], label_scheme: str | None) -> Found:
    """Images with a `.json` or `.cls` of the same key beside them, as an extracted shard has."""
    files = [file for file in files if file.name != OLD_SHEET]
    members = {file.relative_to(root).as_posix(): file.read_bytes for file in files}
    yield from items_of(members, label_scheme, "", root)


def have_sidecars(files: Sequence[Path]) -> bool:
    """Whether at least half of the images among files have one."""
    keys = {
        (file.parent, file.name.partition(".")[0])
        for file in files
        if file.suffix.lower() in _SIDECARS
    }
    images = [file for file in files if file.suffix.lower() in IMAGES]
    beside = sum((file.parent, file.name.partition(".")[0]) in keys for file in images)
    return 0 < len(images) <= 2 * beside


def items_of(
    members: Mapping[str, Read], label_scheme: str | None, shard: str, place: Path
) -> Found:
    """The samples among `members`, by their names: the label in a JSON goes first, then a `.cls`.

    Where neither has one that is understood, it is that of the image's folder. `shard` is the name
    of the archive at `place` that has them; without one they are files in the folder `place`.
    """
    samples: list[_Sample] = []
    for found in _samples(members):
        if isinstance(found, Skipped):
            yield replace(found, name=_within(shard, found.name))
        else:
            samples.append(found)
    records = [_record(sample.texts) for sample in samples]
    values = survey(record for record in records if record is not None)
    columns = columns_of(tuple(values), values)
    said = [
        _label(sample, record, columns, label_scheme)
        for sample, record in zip(samples, records, strict=True)
    ]
    inside = PurePosixPath(shard).with_suffix("").as_posix() if shard else ""
    folders = [_within(inside, sample.key) for sample in samples]
    labels = _with_folders(said, folders, label_scheme)
    for sample, record, label in zip(samples, records, labels, strict=True):
        name = _within(shard, sample.key) if shard else sample.file
        split = columns.split_of(record or {}) or split_of_path(name)
        label = Label(None, columns.problem) if label == UNLABELLED else label
        item = Item(name, *label, split, place if shard else place / sample.file, sample.image)
        yield from as_said(item, columns.box_of(record or {}))
    if columns.unused_box is not None:
        yield Skipped(shard or "*.json", NOT_USED.format(columns.unused_box))
    if UNLABELLED in labels and columns.problem is not None:
        yield Skipped(shard or "*.json", f"of its JSON {columns.problem}")


def _within(shard: str, name: str) -> str:
    return f"{shard}/{name}" if shard else name


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


def _samples(members: Mapping[str, Read]) -> Iterator[_Sample | Skipped]:
    """The samples: what has the same name up to the first dot in its last part."""
    keyed: dict[str, dict[str, str]] = {}
    for name in members:
        folder, _, last = name.rpartition("/")
        stem, _, extension = last.partition(".")
        keyed.setdefault(f"{folder}/{stem}".lstrip("/"), {})[extension.lower()] = name
    unread: Counter[str] = Counter()
    for key, files in keyed.items():
        images = [end for end in files if f".{end.rpartition('.')[2]}" in IMAGES]
        images.sort(key=lambda end: "." in end)
        if not images:
            yield Skipped(key, _no_image(files.values()))
            continue
        left = set(files.values()) - {files[end] for end in images}
        if len(images) > 1 and not _texts("", files):  # images with a dot in their names
            for end in images:
                found = _texts(end, files)
                left -= set(found.values())
                texts = {kind: members[name] for kind, name in found.items()}
                yield _Sample(files[end], files[end], members[files[end]], texts)
        else:
            first = images[0]
            found = _texts(first, files) or _texts("", files)
            left -= set(found.values())
            texts = {kind: members[name] for kind, name in found.items()}
            yield _Sample(key, files[first], members[files[first]], texts)
            for end in images[1:]:
                why = f"{files[first]} is the image of its sample, and it is not used"
                yield Skipped(files[end], why)
        unread.update(PurePosixPath(name).suffix.lower() for name in left)
    for suffix, count in unread.items():
        why = f"{count} of them beside images; labels are read from .json and .cls alone"
        yield Skipped(f"*{suffix}", why)


def _texts(image: str, files: Mapping[str, str]) -> dict[str, str]:
    """The files of labels by their kind, of an image by its extension: `a.json` of `a.jpg`."""
    before = image.rpartition(".")[0]
    ends = {kind: f"{before}.{kind}" if before else kind for kind in ("json", "cls")}
    return {kind: files[end] for kind, end in ends.items() if end in files}


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
