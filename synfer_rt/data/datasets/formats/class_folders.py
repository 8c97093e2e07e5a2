"""Image files in a folder for each class: `happy/a.jpg`, `train/Sadness/b.png`."""

from __future__ import annotations

from synfer_rt.data.datasets.contents import Contents
from synfer_rt.data.datasets.formats.format import Format
from synfer_rt.data.datasets.formats.left_out import tables_and_archives
from synfer_rt.data.datasets.items import IMAGES, Found


def read(contents: Contents) -> Found:
    """The nearest folder with the name of a class is the label, at any depth.

    Raises UserError for a folder whose name seems to be a misspelt class.
    """
    folders = contents.folder_names
    folders.check_spelling(map(contents.name, contents.images))
    for file in contents.files:
        label = folders.label(contents.name(file))
        if label.name is not None or file.suffix.lower() in IMAGES:
            yield contents.item(file, label)
        else:
            yield contents.skipped(file, label.problem or "")


def has_classes(contents: Contents) -> bool:
    """Whether folders are named after classes, or nearly."""
    return contents.folder_names.any


FORMAT = Format("folders", read, possible=has_classes, left_out=tables_and_archives)
