"""WebDataset: tar files of samples. Zip files, and class folders inside of either, are read too."""

from __future__ import annotations

from synfer_rt.data.datasets.archives import TAR, is_archive, members_of
from synfer_rt.data.datasets.contents import Contents
from synfer_rt.data.datasets.formats.format import Format
from synfer_rt.data.datasets.formats.left_out import loose_images
from synfer_rt.data.datasets.items import Found, Read, Skipped
from synfer_rt.data.datasets.samples import items_of_samples


def read(contents: Contents) -> Found:
    """The label of `key.png` is in `key.json`, else in `key.cls`, else it is the folder's name."""
    for file in filter(is_archive, contents.files):
        shard = contents.name(file)
        members: dict[str, Read] = {}
        for found in members_of(file, shard):
            if isinstance(found, Skipped):
                yield found
                continue
            name, content = found
            if name in members:
                why = "another file in the archive has the same name; the first is used"
                yield Skipped(f"{shard}/{name}", why)
            members.setdefault(name, content)
        yield from items_of_samples(members, contents, shard, file)
    yield from loose_images(contents, "archives")


def has_shards(contents: Contents) -> bool:
    """Whether there are tar files, and not only beside a dataset of image files.

    An unpacked dataset may be beside the archive that it came from.
    """
    is_labelled = contents.tables_tell or contents.folder_names.any
    tars = contents.suffixes[TAR]
    return tars > 0 and not (is_labelled and len(contents.images) > tars)


def has_archives_alone(contents: Contents) -> bool:
    """Whether there are archives, and no image files."""
    return not contents.images and any(map(is_archive, contents.files))


FORMAT = Format("webdataset", read, certain=has_shards, possible=has_archives_alone)
