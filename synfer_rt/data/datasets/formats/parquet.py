"""Parquet files with a column of image files, and columns with their labels."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path

from synfer_rt.data.datasets.contents import Contents
from synfer_rt.data.datasets.formats.format import Format
from synfer_rt.data.datasets.formats.left_out import loose_images
from synfer_rt.data.datasets.items import UNDESCRIBED, Found, Item, Skipped
from synfer_rt.data.datasets.labels.label import UNLABELLED, Label
from synfer_rt.data.datasets.labels.splits import split_of_path
from synfer_rt.data.datasets.tables.boxes import NOT_USED, boxed
from synfer_rt.data.datasets.tables.cells import survey
from synfer_rt.data.datasets.tables.column_names import PIXELS, key
from synfer_rt.data.datasets.tables.columns import columns_of
from synfer_rt.data.datasets.tables.parquet_file import SUFFIX, ParquetFile, image_at, opened
from synfer_rt.data.datasets.tables.table import PIXELS_ELSEWHERE


def read(contents: Contents) -> Found:
    """Each row is an image: Hugging Face's struct of bytes and path, or bytes alone.

    The other columns are read as those of tables. Class numbers have the names that Hugging Face's
    `datasets` keeps in the schema.
    """
    for file in filter(_is_parquet, contents.files):
        shard = contents.name(file)
        try:
            with opened(file) as table:
                if table.image is None:
                    raise ValueError(_no_image(table))
                yield from _items(file, shard, table, table.image, contents)
        except (OSError, ValueError) as error:
            yield Skipped(shard, f"it is not a Parquet file of images ({error})")
    yield from loose_images(contents, "Parquet files")


def _is_parquet(file: Path) -> bool:
    return file.suffix.lower() == SUFFIX


def _no_image(table: ParquetFile) -> str:
    if PIXELS in map(key, table.names):
        return PIXELS_ELSEWHERE
    found = table.described()[:400]
    return f"no column holds image files: {found}; rename the column of images to image"


def _items(
    file: Path, shard: str, table: ParquetFile, image: str, contents: Contents
) -> Iterator[Item | Skipped]:
    groups = range(table.groups)
    values = survey(row for group in groups for row in table.rows(group))
    columns = columns_of([name for name in table.names if name != image], values)
    split, unlabelled = split_of_path(f"{shard}/"), False
    for group in groups:
        for i, row in enumerate(table.rows(group)):
            label = columns.label(row, contents.label_scheme)
            own = columns.split_of(row) or split
            if label == UNLABELLED:
                unlabelled, label = True, Label(None, columns.problem)
            read_image = partial(image_at, file, image, group, i)
            name, person = f"{shard}/{group}-{i}", columns.person_of(row)
            said = columns.description(row) if contents.describes else UNDESCRIBED
            item = Item(name, *label, own, file, read_image, person, said)
            yield from boxed(item, columns.box_of(row))
    if columns.unused_box is not None:
        yield Skipped(shard, NOT_USED.format(columns.unused_box))
    if unlabelled and columns.problem is not None:
        yield Skipped(shard, columns.problem)


def has_images(contents: Contents) -> bool:
    """Whether a Parquet file has a column of image files."""
    return any(map(_holds_images, filter(_is_parquet, contents.files)))


def _holds_images(file: Path) -> bool:
    try:
        with opened(file) as table:
            return table.image is not None
    except (OSError, ValueError):
        return False


def has_parquet_alone(contents: Contents) -> bool:
    """Whether there are Parquet files, and no image files."""
    return not contents.images and contents.suffixes[SUFFIX] > 0


FORMAT = Format("parquet", read, likely=has_images, possible=has_parquet_alone)
