"""AffectNet (Mollahosseini et al. 2017): a file with the label of each image, or CSV files."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from synfer_rt.data.datasets.contents import Contents
from synfer_rt.data.datasets.formats import table
from synfer_rt.data.datasets.formats.format import Format
from synfer_rt.data.datasets.items import Found
from synfer_rt.data.datasets.labels.label import Label, label_of
from synfer_rt.data.datasets.tables.column_names import AFFECTNET_COLUMN

_LABEL_FILE = "_exp.npy"
"""The end of the name of a file with a label."""


def read(contents: Contents) -> Found:
    """The label of `images/N.jpg` is in `annotations/N_exp.npy`; else it is in the CSV files."""
    if not has_label_files(contents):
        yield from table.read(contents)
        return
    present = set(contents.files)
    for file in contents.images:
        annotation = file.parent.parent / "annotations" / f"{file.stem}{_LABEL_FILE}"
        if annotation in present:
            label = _label(annotation, contents.label_scheme)
        else:
            label = Label(None, f"there is no {annotation.name} for it")
        yield contents.item(file, label)


def _label(annotation: Path, label_scheme: str | None) -> Label:
    try:
        with annotation.open("rb") as file:
            value = np.lib.format.read_array(file, allow_pickle=False).item()
    except Exception as error:  # numpy trusts a damaged header, so any error can follow
        return Label(None, f"{annotation.name} cannot be read ({error})", "")
    return label_of(value, label_scheme)


def has_label_files(contents: Contents) -> bool:
    """Whether there are files of labels."""
    return any(file.name.lower().endswith(_LABEL_FILE) for file in contents.files)


def is_affectnet(contents: Contents) -> bool:
    """Whether there are files of labels, or all tables are AffectNet's."""
    tables = contents.tables.values()
    of_affectnet = (table.columns.files == (AFFECTNET_COLUMN,) for table in tables)
    return has_label_files(contents) or (len(tables) > 0 and all(of_affectnet))


FORMAT = Format("affectnet", read, likely=is_affectnet, label_scheme="affectnet-8")
