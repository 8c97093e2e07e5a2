"""Datasets in Parquet files, read in place: image files in a column, labels in others."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

from synfer_rt.data.datasets.boxes import NOT_USED, as_said
from synfer_rt.data.datasets.columns import (
    IMAGE_COLUMNS,
    PIXELS,
    PIXELS_ELSEWHERE,
    by_key,
    columns_of,
    key,
    survey,
)
from synfer_rt.data.datasets.folders import loose_images
from synfer_rt.data.datasets.items import UNLABELLED, Found, Item, Label, Skipped
from synfer_rt.data.datasets.splits import split_of_path

SUFFIX = ".parquet"


def parquet(root: Path, files: Sequence[Path], label_scheme: str | None) -> Found:
    """Parquet files with a column of image files, and columns as tables have them.

    The image is Hugging Face's struct of bytes and path, or bytes alone. Class numbers go by the
    names that Hugging Face's `datasets` keeps in the schema.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    shards = [file for file in files if file.suffix.lower() == SUFFIX]
    for file in shards:
        shard = file.relative_to(root).as_posix()
        try:
            # Opened here because pyarrow takes no path that is not UTF-8.
            with file.open("rb") as stream, pq.ParquetFile(stream) as table:
                image = _image_column(table.schema_arrow)
                if image is None:
                    raise pa.ArrowInvalid(_no_image(table.schema_arrow))
                yield from _items(file, shard, table, image, label_scheme)
        except (pa.ArrowException, OSError, ValueError) as error:  # ValueError: text not in UTF-8
            yield Skipped(shard, f"it is no Parquet file of images ({error})")
    yield from loose_images(root, files, "Parquet files")


def holds_images(file: Path) -> bool:
    """Whether a Parquet file has a column of image files."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with file.open("rb") as stream:
            return _image_column(pq.read_schema(stream)) is not None
    except (pa.ArrowException, OSError, ValueError):
        return False


def names_of(file: Path) -> tuple[str, ...] | None:
    """The columns of a Parquet file without image files; None for one that has them.

    Raises OSError and ValueError for what is no Parquet file.
    """
    import pyarrow.parquet as pq

    with file.open("rb") as stream:
        schema = pq.read_schema(stream)
    return None if _image_column(schema) else tuple(schema.names)


def rows_without_images(file: Path) -> Iterator[Mapping[str, Any]]:
    """The rows of a Parquet file by the keys of its columns, classes by name."""
    import pyarrow.parquet as pq

    with file.open("rb") as stream, pq.ParquetFile(stream) as table:
        for group in range(table.num_row_groups):
            yield from _rows(table, group)


def _items(
    file: Path, shard: str, table: Any, image: str, label_scheme: str | None
) -> Iterator[Item | Skipped]:
    groups = range(table.num_row_groups)
    values = survey(row for group in groups for row in _rows(table, group))
    names = [name for name in table.schema_arrow.names if name != image]
    columns = columns_of(names, values)
    split, unlabelled = split_of_path(f"{shard}/"), False
    for group in groups:
        for i, row in enumerate(_rows(table, group)):
            label = columns.label(row, label_scheme)
            own = columns.split_of(row) or split
            if label == UNLABELLED:
                unlabelled, label = True, Label(None, columns.problem)
            read = partial(_cell, file, image, group, i)
            item = Item(f"{shard}/{group}-{i}", *label, own, file, read)
            yield from as_said(item, columns.box_of(row))
    if columns.unused_box is not None:
        yield Skipped(shard, NOT_USED.format(columns.unused_box))
    if unlabelled and columns.problem is not None:
        yield Skipped(shard, columns.problem)


def _rows(table: Any, group: int) -> Iterator[Mapping[str, Any]]:
    """The rows of a row group, of words and numbers, and lists and structs of them."""
    schema = table.schema_arrow
    wanted = [name for name in schema.names if _is_plain(schema.field(name).type)]
    features = _features(schema)
    count = table.metadata.row_group(group).num_rows
    for row in table.read_row_group(group, wanted).to_pylist() or [{}] * count:
        yield by_key({name: _named(cell, features.get(name)) for name, cell in row.items()})


def _named(cell: Any, feature: Any) -> Any:
    """A cell by the names of its classes, of which a negative number is a missing label.

    `feature` is what Hugging Face's `datasets` keeps of its column, or of its part of a struct.
    """
    feature = feature if isinstance(feature, dict) else {}
    if isinstance(cell, list) and len(cell) == 1:
        return _named(cell[0], feature.get("feature", feature))
    if isinstance(cell, dict):
        return {name: _named(part, feature.get(name)) for name, part in cell.items()}
    classes = feature.get("names")
    if not isinstance(classes, list) or not isinstance(cell, int):
        return cell
    if cell < 0:
        return None
    return classes[cell] if cell < len(classes) else f"{cell}, beyond its {len(classes)} classes"


def _is_plain(kind: Any) -> bool:
    import pyarrow.types as types

    if types.is_list(kind) or types.is_large_list(kind):
        return _is_plain(kind.value_type) and not types.is_nested(kind.value_type)
    if types.is_struct(kind):
        return all(_is_plain(kind.field(i).type) for i in range(kind.num_fields))
    return not (types.is_nested(kind) or _is_binary(kind))


def _is_binary(kind: Any) -> bool:
    import pyarrow.types as types

    return types.is_binary(kind) or types.is_large_binary(kind) or types.is_fixed_size_binary(kind)


def _features(schema: Any) -> Mapping[str, Any]:
    """What Hugging Face's `datasets` keeps of the columns."""
    try:
        features = json.loads(schema.metadata[b"huggingface"])["info"]["features"]
    except (TypeError, KeyError, ValueError, RecursionError):
        return {}
    return features if isinstance(features, dict) else {}


def _image_column(schema: Any) -> str | None:
    """The column of image files: the one that is said to be, is called so, or is alone."""
    bytes_of = [name for name in schema.names if _holds_bytes(schema.field(name).type)]
    features = _features(schema)
    said = [
        name
        for name in bytes_of
        if isinstance(features.get(name), dict) and features[name].get("_type") == "Image"
    ]
    called = [name for wanted in IMAGE_COLUMNS for name in bytes_of if key(name) == wanted]
    return next(iter(said or called or (bytes_of if len(bytes_of) == 1 else ())), None)


def _holds_bytes(kind: Any) -> bool:
    import pyarrow.types as types

    if types.is_struct(kind):
        index = kind.get_field_index("bytes")
        return index >= 0 and _is_binary(kind.field(index).type)
    return _is_binary(kind)


def _no_image(schema: Any) -> str:
    if PIXELS in map(key, schema.names):
        return PIXELS_ELSEWHERE
    found = ", ".join(f"{name} ({schema.field(name).type})" for name in schema.names)
    return f"none of its columns holds image files: {found[:400]}; call that column image"


def _cell(file: Path, column: str, group: int, row: int) -> bytes:
    import pyarrow as pa

    try:
        value = _images_of(file, column, group)[row].as_py()
    except (pa.ArrowException, ValueError) as error:
        raise OSError(f"the Parquet file is damaged: {error}") from None
    content = value.get("bytes") if isinstance(value, dict) else value
    if not isinstance(content, bytes):
        path = value.get("path") if isinstance(value, dict) else None
        named = f", only the path {path}" if isinstance(path, str) and path else ""
        raise OSError(f"the Parquet file holds no bytes of it{named}")
    return content


@lru_cache(maxsize=4)
def _images_of(file: Path, column: str, group: int) -> Any:
    import pyarrow.parquet as pq

    with file.open("rb") as stream, pq.ParquetFile(stream) as table:
        return table.read_row_group(group, [column]).column(0)
