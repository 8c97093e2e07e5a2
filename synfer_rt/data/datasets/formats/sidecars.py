"""Images with a `.json` or `.cls` of the same name beside each, as an extracted WebDataset has."""

from __future__ import annotations

from synfer_rt.data.datasets.contents import Contents
from synfer_rt.data.datasets.formats.format import Format
from synfer_rt.data.datasets.formats.left_out import tables_and_archives
from synfer_rt.data.datasets.items import Found
from synfer_rt.data.datasets.samples import SIDECARS, items_of_samples
from synfer_rt.data.writers.run_file import OLD_SHEET


def read(contents: Contents) -> Found:
    """The label of `a.jpg` is in `a.json`, else in `a.cls`."""
    files = [file for file in contents.files if file.name != OLD_SHEET]
    members = {contents.name(file): file.read_bytes for file in files}
    yield from items_of_samples(members, contents, "", contents.root)


def have_sidecars(contents: Contents) -> bool:
    """Whether at least half of the images have one."""
    keys = {
        (file.parent, file.name.partition(".")[0])
        for file in contents.files
        if file.suffix.lower() in SIDECARS
    }
    images = contents.images
    beside = sum((file.parent, file.name.partition(".")[0]) in keys for file in images)
    return 0 < len(images) <= 2 * beside


FORMAT = Format("sidecars", read, possible=have_sidecars, left_out=tables_and_archives)
