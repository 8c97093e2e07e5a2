"""The formats of datasets, and which one a dataset has."""

from __future__ import annotations

from synfer_rt.data.datasets.contents import Contents
from synfer_rt.data.datasets.formats import (
    affectnet,
    ck_plus,
    class_folders,
    file_names,
    images,
    parquet,
    raf_db,
    sidecars,
    table,
    webdataset,
)
from synfer_rt.data.datasets.formats.format import Format

FORMATS: dict[str, Format] = {
    format.name: format
    for format in (
        raf_db.FORMAT,
        parquet.FORMAT,
        affectnet.FORMAT,
        table.FORMAT,
        webdataset.FORMAT,
        ck_plus.FORMAT,
        sidecars.FORMAT,
        class_folders.FORMAT,
        file_names.FORMAT,
        images.FORMAT,
    )
}
"""The formats by name, in the order in which they are tested. docs/labelling.md describes each."""


def recognised(contents: Contents) -> Format:
    """The format of a dataset, by its files. Raises UserError for a table that is damaged.

    Files that no format recognises are images without labels. If the user gives a label scheme, the
    dataset must have labels: then the format is class folders, which say why there are none.
    """
    formats = FORMATS.values()
    surest_first = [
        *((format, format.certain) for format in formats),
        *((format, format.likely) for format in formats),
        *((format, format.possible) for format in formats),
    ]
    for format, test in surest_first:
        if test is not None and test(contents):
            return format
    return images.FORMAT if contents.label_scheme is None else class_folders.FORMAT
