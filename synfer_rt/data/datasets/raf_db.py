"""RAF-DB's layout: lists of its own kind beside the images (Li et al. 2017)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from synfer_rt.data.datasets.boxes import box_of
from synfer_rt.data.datasets.items import Found, Label, label_of
from synfer_rt.data.datasets.listings import Lookup, Row, listed
from synfer_rt.data.datasets.numbering import number, other_list
from synfer_rt.data.datasets.splits import split_of
from synfer_rt.errors import UserError

RAF_LISTS = ("list_patition_label.txt", "list_partition_label.txt")
"""The dataset's own spelling, and the usual correction."""
_BOX_FILE = "_boundingbox.txt"
_CORNERS = ("left", "top", "right", "bottom")
"""What such a file has, in pixels of the original image."""


def raf_db(root: Path, files: Sequence[Path], label_scheme: str | None) -> Found:
    """RAF-DB: a list of `train_00001.jpg 5`, and that image aligned, else cropped to its face."""
    scheme = label_scheme or "raf-db"
    rows: list[Row] = []
    for listing in (file for file in files if file.name.lower() in RAF_LISTS):
        try:
            text = listing.read_text("utf-8-sig", "replace")
        except OSError as error:
            raise UserError(f"{listing} cannot be read ({error.strerror}); mend it.") from None
        lines = [line.split(maxsplit=1) for line in text.splitlines() if line.strip()]
        labels = _labels(root, listing, [line[1] if line[1:] else "" for line in lines], scheme)
        rows += [
            Row(listing, line[0], label, split_of(line[0]))
            for line, label in zip(lines, labels, strict=True)
        ]
    lookup = Lookup(root, files)
    from_root = [replace(row, listing=root / row.listing.name) for row in rows]
    aligned = lookup.find([replace(row, name=_aligned(row.name)) for row in from_root])
    as_it_is = lookup.find(from_root)
    boxes = {file.name: file for file in files if file.name.endswith(_BOX_FILE)}
    found = [
        (row, one) if isinstance(one, Path) else (_with_box(row, boxes), other)
        for row, one, other in zip(rows, aligned, as_it_is, strict=True)
    ]
    yield from listed(root, found, scheme)


def _with_box(row: Row, boxes: Mapping[str, Path]) -> Row:
    """A row of an image that is not aligned, with the box of its face where the dataset has it."""
    file = boxes.get(f"{row.name.rpartition('.')[0] or row.name}{_BOX_FILE}")
    if file is None:
        return row
    try:
        cells = file.read_text("utf-8-sig", "replace").split()
    except OSError as error:
        return replace(row, problem=f"{file.name} cannot be read ({error.strerror})")
    box = box_of(dict(zip(_CORNERS, cells, strict=False)), (_CORNERS, True))
    return replace(row, problem=box) if isinstance(box, str) else replace(row, box=box)


def _aligned(name: str) -> str:
    return f"{name.rpartition('.')[0] or name}_aligned"


def _labels(root: Path, listing: Path, written: Sequence[str], scheme: str) -> list[Label]:
    """The labels of a list; none where it is that of the compound expressions, of the same name."""
    labels = [label_of(text, scheme) for text in written]
    why = other_list(scheme, {n for label in labels if (n := number(label)) is not None})
    folders = (root.name, *listing.relative_to(root).parts[:-1])
    if why is None and any("compound" in folder.lower() for folder in folders):
        why = "its list lies in a folder of compound expressions"
    return labels if why is None else [Label(None, why, label.written) for label in labels]
