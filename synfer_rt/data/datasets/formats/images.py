"""Images without labels, in files and folders of any name."""

from __future__ import annotations

from synfer_rt.data.datasets.contents import Contents
from synfer_rt.data.datasets.formats.format import Format
from synfer_rt.data.datasets.formats.left_out import tables_and_archives
from synfer_rt.data.datasets.items import Found
from synfer_rt.data.datasets.labels.label import UNLABELLED


def read(contents: Contents) -> Found:
    """Every file is an image, whatever its suffix."""
    for file in contents.files:
        yield contents.item(file, UNLABELLED)


FORMAT = Format("images", read, left_out=tables_and_archives)
