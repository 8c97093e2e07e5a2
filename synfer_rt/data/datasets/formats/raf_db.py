"""RAF-DB (Li et al. 2017): a list of labels, with aligned images or face boxes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from synfer_rt.data.datasets.contents import Contents
from synfer_rt.data.datasets.formats.format import Format
from synfer_rt.data.datasets.items import Found
from synfer_rt.data.datasets.labels.label import Label, label_of
from synfer_rt.data.datasets.labels.numbering import other_list
from synfer_rt.data.datasets.labels.splits import split_of
from synfer_rt.data.datasets.tables.boxes import BoxColumns, box_of
from synfer_rt.data.datasets.tables.entries import Entry, items_of_entries
from synfer_rt.data.datasets.tables.lookup import Lookup
from synfer_rt.errors import UserError
from synfer_rt.vocabulary.label_schemes import own_classes

_LISTS = frozenset(("list_patition_label.txt", "list_partition_label.txt"))
"""The list of labels: the dataset's own spelling, and the usual correction."""
_BOX_FILE = "_boundingbox.txt"
"""The end of the name of a file with a face box."""
_CORNERS = BoxColumns(("left", "top", "right", "bottom"), corners=True)
"""What such a file has, in pixels of the original image."""


def read(contents: Contents) -> Found:
    """The list has lines such as `train_00001.jpg 5`.

    The image is `train_00001_aligned.jpg`, else `train_00001.jpg` cropped to the box in
    `train_00001_boundingbox.txt`. Raises UserError for a list that cannot be read.
    """
    lists = [file for file in contents.files if file.name.lower() in _LISTS]
    entries = [entry for file in lists for entry in _entries(contents, file)]
    lookup = Lookup(contents.root, contents.files)
    from_root = [replace(entry, table=contents.root / entry.table.name) for entry in entries]
    aligned = lookup.find([replace(entry, name=_aligned(entry.name)) for entry in from_root])
    original = lookup.find(from_root)
    boxes = {file.name: file for file in contents.files if file.name.endswith(_BOX_FILE)}
    found = [
        (entry, image) if isinstance(image, Path) else (_with_box(entry, boxes), other)
        for entry, image, other in zip(entries, aligned, original, strict=True)
    ]
    yield from items_of_entries(contents.root, found, contents.label_scheme)


def _entries(contents: Contents, file: Path) -> Sequence[Entry]:
    try:
        text = file.read_text("utf-8-sig", "replace")
    except OSError as error:
        raise UserError(f"{file} cannot be read ({error.strerror}); repair it.") from None
    lines = [line.split(maxsplit=1) for line in text.splitlines() if line.strip()]
    labels = _labels(contents, file, [line[1] if line[1:] else "" for line in lines])
    return [
        Entry(file, line[0], label, split_of(line[0]))
        for line, label in zip(lines, labels, strict=True)
    ]


def _labels(contents: Contents, file: Path, written: Sequence[str]) -> Sequence[Label]:
    """The labels of a list; none if it is the list of compound expressions, of the same name.

    A scheme with classes of its own says what they mean.
    """
    scheme = contents.label_scheme
    labels = [label_of(text, scheme) for text in written]
    numbers = {label.number for label in labels if label.number is not None}
    why = None if scheme is None else other_list(scheme, numbers)
    folders = (contents.root.name, *file.relative_to(contents.root).parts[:-1])
    if (
        not own_classes(scheme)
        and why is None
        and any("compound" in folder.lower() for folder in folders)
    ):
        why = (
            "its list is in a folder of compound expressions; read it with "
            '`label_scheme="raf-db-compound"`'
        )
    return labels if why is None else [Label(None, why, label.written) for label in labels]


def _aligned(name: str) -> str:
    return f"{name.rpartition('.')[0] or name}_aligned"


def _with_box(entry: Entry, boxes: Mapping[str, Path]) -> Entry:
    """A entry of an image that is not aligned, with the box of its face if the dataset has it."""
    file = boxes.get(f"{entry.name.rpartition('.')[0] or entry.name}{_BOX_FILE}")
    if file is None:
        return entry
    try:
        cells = file.read_text("utf-8-sig", "replace").split()
    except OSError as error:
        return replace(entry, problem=f"{file.name} cannot be read ({error.strerror})")
    box = box_of(dict(zip(_CORNERS.names, cells, strict=False)), _CORNERS)
    return replace(entry, problem=box) if isinstance(box, str) else replace(entry, box=box)


def has_list(contents: Contents) -> bool:
    """Whether there is a list of labels of the dataset's name for it."""
    return not contents.file_names.isdisjoint(_LISTS)


FORMAT = Format("raf-db", read, certain=has_list, label_scheme="raf-db")
