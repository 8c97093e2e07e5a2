"""RAF-DB's layout: lists of its own kind beside the images (Li et al. 2017)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from synfer_rt.datasets.items import Found, label_of
from synfer_rt.datasets.listings import Lookup, Row, listed
from synfer_rt.datasets.splits import split_of
from synfer_rt.errors import UserError

RAF_LISTS = ("list_patition_label.txt", "list_partition_label.txt")
"""The dataset's own spelling, and the usual correction."""


def raf_db(root: Path, files: Sequence[Path], label_scheme: str | None) -> Found:
    """RAF-DB: a list of `train_00001.jpg 5`, and that image aligned, else as it is."""
    scheme = label_scheme or "raf-db"
    rows: list[Row] = []
    for listing in (file for file in files if file.name.lower() in RAF_LISTS):
        try:
            text = listing.read_text("utf-8-sig", "replace")
        except OSError as error:
            raise UserError(f"{listing} cannot be read ({error.strerror}); mend it.") from None
        for line in filter(str.strip, text.splitlines()):
            name, _, number = line.strip().partition(" ")
            rows.append(Row(listing, name, label_of(number, scheme), split_of(name)))
    lookup = Lookup(root, files)
    aligned = lookup.find(
        [(f"{row.name.rpartition('.')[0] or row.name}_aligned", root) for row in rows]
    )
    as_it_is = lookup.find([(row.name, root) for row in rows])
    found = [one or other for one, other in zip(aligned, as_it_is, strict=True)]
    yield from listed(root, zip(rows, found, strict=True), scheme)
