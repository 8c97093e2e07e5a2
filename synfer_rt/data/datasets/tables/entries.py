"""What tables say of images, entry by entry, and the images with what all entries say of them."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from synfer_rt.data.datasets.items import (
    UNDESCRIBED,
    Description,
    Found,
    Item,
    Skipped,
    name_below,
)
from synfer_rt.data.datasets.labels.folder_names import FolderNames, with_folder
from synfer_rt.data.datasets.labels.label import UNLABELLED, Label
from synfer_rt.data.datasets.labels.splits import split_of_path
from synfer_rt.data.datasets.tables.boxes import Box, in_box

_SHOWN = 200
"""How many characters of a name are reported; it may be a cell of pixels."""


@dataclass(frozen=True)
class Entry:
    """What a row of a table says of an image, or of the part of it in a face box.

    `name` is the image as the row writes it. `label`, `split`, `box` and `person` are what the row
    says, if anything. `problem` says why the box of the row is not used. `description` is what the
    row says besides, if that is asked for.
    """

    table: Path
    name: str
    label: Label
    split: str | None
    box: Box | None = None
    problem: str | None = None
    person: str | None = None
    description: Description = UNDESCRIBED

    @property
    def path(self) -> Path:
        """Its name as a path, whatever system it was written on."""
        return Path(os.path.normpath(self.name.strip().replace("\\", "/")))


Matched = tuple[Entry, Path | str]
"""An entry with the file that it names, or the reason why there is none."""
_Known = dict[tuple[Path, Box | None], Entry]
"""What all entries together say of an image, or of its part in a box."""


def items_of_entries(root: Path, matched: Sequence[Matched], label_scheme: str | None) -> Found:
    """Each image once, with the first label and the first split that entries give it.

    An image with several boxes is one item for each. Without a label, the folders of the image
    count; without a split, they do, too, and then the folders that the entry names. An entry that
    is not used, or only in part, is reported by the names of its table and image.
    """
    tables = {table: name_below(root, table) for table in {entry.table for entry, _ in matched}}
    known, unused = _merged(root, matched, tables)
    yield from unused
    names = {file: name_below(root, file) for file, _ in known}
    folders = FolderNames(names.values(), label_scheme)
    for (file, box), entry in known.items():
        name = names[file]
        label = with_folder(entry.label, folders.label(name))
        split = (
            entry.split
            or split_of_path(name)
            or split_of_path(entry.path.as_posix())
            or split_of_path(tables[entry.table])
        )
        item = Item(name, *label, split, file, file.read_bytes, entry.person, entry.description)
        yield in_box(item, box)


def _merged(
    root: Path, matched: Sequence[Matched], tables: Mapping[Path, str]
) -> tuple[_Known, list[Skipped]]:
    """What entries together say of each image, and the entries that are not used."""
    known: _Known = {}
    unused: list[Skipped] = []
    for entry, file in _with_boxes(matched):
        reported = f"{tables[entry.table]}: {entry.name[:_SHOWN]}"
        if isinstance(file, str):
            unused.append(Skipped(reported, file))
            continue
        if entry.problem is not None:
            unused.append(Skipped(reported, f"{entry.problem}; the whole image is used"))
        counts = known.get((file, entry.box))
        if counts is None:
            counts = entry
        else:
            label = entry.label if counts.label == UNLABELLED else counts.label
            counts = replace(
                counts,
                label=label,
                split=counts.split or entry.split,
                person=counts.person or entry.person,
                description=counts.description.filled_by(entry.description),
            )
        known[file, entry.box] = counts
        if against := list(_contradictions(entry, counts, root, file)):
            unused.append(Skipped(reported, "; ".join(against)))
    return known, unused


def _contradictions(entry: Entry, counts: Entry, root: Path, file: Path) -> Iterator[str]:
    """What an entry says otherwise than `counts` or the folders of its image."""
    if entry.label != UNLABELLED and entry.label.name != counts.label.name:
        said, first = (one.label.name or "no known expression" for one in (entry, counts))
        yield f"it says {said}, but an earlier row says {first}, which is used"
    if entry.split is None:
        return
    lies_in = split_of_path(name_below(root, file))
    if entry.split != counts.split:
        first = f"an earlier row says {counts.split}, which is used"
        yield f"it says the split {entry.split}, but {first}"
    elif lies_in is not None and entry.split != lies_in:
        yield f"it says the split {entry.split}, which is used, but its folder says {lies_in}"


def _with_boxes(matched: Sequence[Matched]) -> Iterator[Matched]:
    """The entries; one without a box has the box that other entries give its image."""
    boxes: dict[Path, set[Box]] = {}
    for entry, file in matched:
        if isinstance(file, Path) and entry.box is not None:
            boxes.setdefault(file, set()).add(entry.box)
    for entry, file in matched:
        known = boxes.get(file, ()) if isinstance(file, Path) and entry.box is None else ()
        if len(known) > 1:
            why = f"its image has {len(known)} face boxes, and it does not say which one it means"
            yield entry, why
        elif known:
            yield replace(entry, box=next(iter(known)), problem=None), file
        else:
            yield entry, file
