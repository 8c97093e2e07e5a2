"""Parquet files, read in place: their column of image files, and the rows of the other columns."""

from __future__ import annotations

import json
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import lru_cache
from importlib import import_module
from pathlib import Path
from typing import Any

from synfer_rt.data.datasets.tables import column_names
from synfer_rt.data.datasets.tables.cells import Row, by_key
from synfer_rt.data.datasets.tables.column_names import key
from synfer_rt.data.datasets.untyped import is_list, is_mapping

SUFFIX = ".parquet"


def _pyarrow() -> tuple[Any, Any, Any]:
    """pyarrow, pyarrow.parquet and pyarrow.types; it loads slowly and declares no types."""
    return (
        import_module("pyarrow"),
        import_module("pyarrow.parquet"),
        import_module("pyarrow.types"),
    )


class ParquetFile:
    """An open Parquet file.

    `names` are its columns, `groups` the number of its row groups, and `image` its column of image
    files: the one that Hugging Face's schema declares as such, else one with a usual name, else the
    only column of bytes; None if there is none.
    """

    def __init__(self, file: Any) -> None:
        self._file = file
        self._schema = file.schema_arrow
        self.names: Sequence[str] = self._schema.names
        self.groups: int = file.num_row_groups
        self._features = _features(self._schema.metadata)
        self.image = self._image()

    def _image(self) -> str | None:
        of_bytes = [name for name in self.names if _holds_bytes(self._type(name))]
        declared = [name for name in of_bytes if _kind(self._features.get(name)) == "Image"]
        usual = [name for like in column_names.IMAGES for name in of_bytes if key(name) == like]
        only = of_bytes if len(of_bytes) == 1 else []
        return next(iter(declared or usual or only), None)

    def _type(self, name: str) -> Any:
        return self._schema.field(name).type

    def described(self) -> str:
        """Its columns with their types."""
        return ", ".join(f"{name} ({self._type(name)})" for name in self.names)

    def rows(self, group: int) -> Iterator[Row]:
        """The rows of a row group without the columns of bytes, with names for class numbers."""
        wanted = [name for name in self.names if _is_plain(self._type(name))]
        count: int = self._file.metadata.row_group(group).num_rows
        rows: list[dict[str, object]] = self._file.read_row_group(group, wanted).to_pylist()
        for row in rows or [{} for _ in range(count)]:
            named = {name: _named(cell, self._features.get(name)) for name, cell in row.items()}
            yield by_key(named)


@contextmanager
def opened(file: Path) -> Generator[ParquetFile]:
    """A Parquet file, open. Raises OSError, and ValueError for one that is damaged or is none."""
    arrow, parquet, _ = _pyarrow()
    try:
        # Opened here because pyarrow takes no path that is not UTF-8.
        with file.open("rb") as stream, parquet.ParquetFile(stream) as table:
            yield ParquetFile(table)
    except arrow.ArrowException as error:
        raise ValueError(str(error)) from None


def parquet_rows(file: Path) -> Iterator[Row]:
    """The rows of a Parquet file by the keys of their columns. Raises as `opened` does."""
    with opened(file) as table:
        for group in range(table.groups):
            yield from table.rows(group)


def image_at(file: Path, column: str, group: int, row: int) -> bytes:
    """The image file in a row of a row group. Raises OSError if there is none."""
    arrow, _, _ = _pyarrow()
    try:
        value: object = _images(file, column, group)[row].as_py()
    except (arrow.ArrowException, ValueError) as error:
        raise OSError(f"the Parquet file is damaged: {error}") from None
    content = value.get("bytes") if is_mapping(value) else value
    if not isinstance(content, bytes):
        path = value.get("path") if is_mapping(value) else None
        named = f", only its path {path}" if isinstance(path, str) and path else ""
        raise OSError(f"the Parquet file does not contain it{named}")
    return content


@lru_cache(maxsize=4)
def _images(file: Path, column: str, group: int) -> Any:
    _, parquet, _ = _pyarrow()
    with file.open("rb") as stream, parquet.ParquetFile(stream) as table:
        return table.read_row_group(group, [column]).column(0)


def _features(metadata: Mapping[bytes, bytes] | None) -> Mapping[object, object]:
    """The columns as Hugging Face's `datasets` describes them in the schema, if it wrote it."""
    try:
        features: object = json.loads((metadata or {})[b"huggingface"])["info"]["features"]
    except (TypeError, KeyError, ValueError, RecursionError):
        return {}
    return features if is_mapping(features) else {}


def _kind(feature: object) -> object:
    return feature.get("_type") if is_mapping(feature) else None


def _named(cell: object, feature: object) -> object:
    """A cell with the names of its classes; a negative number is a missing label.

    `feature` describes its column, or its part of a struct.
    """
    feature = feature if is_mapping(feature) else {}
    if is_list(cell) and len(cell) == 1:
        return _named(cell[0], feature.get("feature", feature))
    if is_mapping(cell):
        return {name: _named(part, feature.get(name)) for name, part in cell.items()}
    classes = feature.get("names")
    if not is_list(classes) or not isinstance(cell, int):
        return cell
    if cell < 0:
        return None
    return classes[cell] if cell < len(classes) else f"{cell}, beyond its {len(classes)} classes"


def _is_plain(kind: Any) -> bool:
    """Whether an Arrow type is of words and numbers, or lists or structs of them."""
    _, _, types = _pyarrow()
    if types.is_list(kind) or types.is_large_list(kind):
        return _is_plain(kind.value_type) and not types.is_nested(kind.value_type)
    if types.is_struct(kind):
        return all(_is_plain(kind.field(i).type) for i in range(kind.num_fields))
    return not (types.is_nested(kind) or _is_binary(kind))


def _holds_bytes(kind: Any) -> bool:
    """Whether an Arrow type is of bytes, or Hugging Face's struct of bytes and path."""
    _, _, types = _pyarrow()
    if types.is_struct(kind):
        index = kind.get_field_index("bytes")
        return index >= 0 and _is_binary(kind.field(index).type)
    return _is_binary(kind)


def _is_binary(kind: Any) -> bool:
    _, _, types = _pyarrow()
    return types.is_binary(kind) or types.is_large_binary(kind) or types.is_fixed_size_binary(kind)
