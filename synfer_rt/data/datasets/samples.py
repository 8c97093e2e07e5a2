"""Samples of WebDataset: an image, with its label and caption in files of the same key beside it.

They are in tar or zip files, or in folders where a tar file was extracted.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

from synfer_rt.data.datasets import captions
from synfer_rt.data.datasets.contents import Contents
from synfer_rt.data.datasets.items import (
    IMAGES,
    UNDESCRIBED,
    Description,
    Found,
    Item,
    Read,
    Skipped,
)
from synfer_rt.data.datasets.labels.folder_names import FolderNames, with_folder
from synfer_rt.data.datasets.labels.label import UNLABELLED, Label, label_of
from synfer_rt.data.datasets.labels.splits import split_of_path
from synfer_rt.data.datasets.tables.boxes import NOT_USED, boxed
from synfer_rt.data.datasets.tables.cells import Row, by_key, survey
from synfer_rt.data.datasets.tables.columns import Columns, columns_of
from synfer_rt.data.datasets.untyped import is_mapping

SIDECARS = (".json", ".cls")
"""Suffixes of files with the label of the image beside them."""
_CAPTION = captions.SUFFIX.lstrip(".")
_TABLES = (".csv", ".tsv", ".jsonl", ".parquet", ".xlsx")


@dataclass(frozen=True)
class _Sample:
    """An image: its key, its file name, and the texts of the same key by their kind, such as json.

    The kinds are json and cls, and txt for a caption.
    """

    key: str
    file: str
    image: Read
    texts: Mapping[str, Read]


def items_of_samples(
    members: Mapping[str, Read], contents: Contents, shard: str, place: Path
) -> Found:
    """The images among `members`, which are files by their names.

    A label in the JSON goes first, then one in the `.cls`, then that of the image's folder. A
    caption in the `.txt` goes before one in the JSON. `shard` is the name of the archive at `place`
    that has the members; it is empty if they are files in the folder `place`.
    """
    label_scheme = contents.label_scheme
    samples: list[_Sample] = []
    for found in _samples(members, contents.describes):
        if isinstance(found, Skipped):
            yield replace(found, name=_within(shard, found.name))
        else:
            samples.append(found)
    records = [_record(sample.texts) for sample in samples]
    values = survey(record for record in records if record is not None)
    columns = columns_of(tuple(values), values)
    own = [
        _label(sample, record, columns, label_scheme)
        for sample, record in zip(samples, records, strict=True)
    ]
    inside = PurePosixPath(shard).with_suffix("").as_posix() if shard else ""
    folders = [_within(inside, sample.key) for sample in samples]
    labels = _with_folders(own, folders, label_scheme)
    for sample, record, label in zip(samples, records, labels, strict=True):
        name = _within(shard, sample.key) if shard else sample.file
        split = columns.split_of(record or {}) or split_of_path(name)
        label = Label(None, columns.problem) if label == UNLABELLED else label
        file, person = place if shard else place / sample.file, columns.person_of(record or {})
        said = columns.description(record or {}) if contents.describes else UNDESCRIBED
        if (text := sample.texts.get(_CAPTION)) is not None:
            caption = captions.caption_of(text)
            said = Description(caption).filled_by(said)
            if caption is None:
                yield Skipped(f"{name}{captions.SUFFIX}", captions.NO_WORDS)
        item = Item(name, *label, split, file, sample.image, person, said)
        yield from boxed(item, columns.box_of(record or {}))
    if columns.unused_box is not None:
        yield Skipped(shard or "*.json", NOT_USED.format(columns.unused_box))
    if UNLABELLED in labels and columns.problem is not None:
        yield Skipped(shard or "*.json", f"in its JSON, {columns.problem}")


def _within(shard: str, name: str) -> str:
    return f"{shard}/{name}" if shard else name


def _samples(members: Mapping[str, Read], describes: bool) -> Iterator[_Sample | Skipped]:
    """The samples: files with the same name up to the first dot in its last part.

    They have their captions if the dataset `describes` its images.
    """
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
            keys = {end: files[end] for end in images}
        else:
            keys = {images[0]: key}
            for end in images[1:]:
                why = f"{files[images[0]]} is used as the image of its sample instead"
                yield Skipped(files[end], why)
        for end, sample_key in keys.items():
            found = _texts(end, files) or _texts("", files)
            if describes:
                found |= _texts(end, files, (_CAPTION,)) or _texts("", files, (_CAPTION,))
            left -= set(found.values())
            texts = {kind: members[name] for kind, name in found.items()}
            yield _Sample(sample_key, files[end], members[files[end]], texts)
        unread.update(PurePosixPath(name).suffix.lower() for name in left)
    for suffix, count in unread.items():
        read = ".json, .cls and .txt" if describes else ".json and .cls"
        why = f"{count} such files are not used; samples are only described by {read}"
        yield Skipped(f"*{suffix}", why)


def _texts(
    image: str, files: Mapping[str, str], kinds: Sequence[str] = ("json", "cls")
) -> dict[str, str]:
    """The files of these kinds, for an image by its extension: `a.json` for `a.jpg`."""
    before = image.rpartition(".")[0]
    ends = {kind: f"{before}.{kind}" if before else kind for kind in kinds}
    return {kind: files[end] for kind, end in ends.items() if end in files}


def _no_image(names: Iterable[str]) -> str:
    if any(name.lower().endswith(_TABLES) for name in names):
        return "it is a table among samples; unpack the archive, if any, to read it as `table`"
    return "it has no image"


def _record(texts: Mapping[str, Read]) -> Row | None:
    """The JSON of a sample by its keys; None if it cannot be read."""
    if "json" not in texts:
        return {}
    try:
        record: object = json.loads(texts["json"]())
        return by_key(record) if is_mapping(record) else None
    except (OSError, ValueError, RecursionError):
        return None


def _label(
    sample: _Sample, record: Row | None, columns: Columns, label_scheme: str | None
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


def _with_folders(
    own: Sequence[Label], names: Sequence[str], label_scheme: str | None
) -> list[Label]:
    """The labels of images, by their own and by the folders in their `names`.

    Raises UserError for a folder beside those of classes that seems to be a misspelt class.
    """
    folders = FolderNames(names, label_scheme)
    of_folders = list(map(folders.label, names))
    found = [with_folder(label, folder) for label, folder in zip(own, of_folders, strict=True)]
    if not any(new.name and not old.name for new, old in zip(found, own, strict=True)):
        return found
    folders.check_spelling(names)
    return [
        folder if label == UNLABELLED else label
        for label, folder in zip(found, of_folders, strict=True)
    ]
