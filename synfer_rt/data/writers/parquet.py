"""The parquet format: `data-00000.parquet`, … with the image's bytes and every column.

Hugging Face's `datasets` decodes the `image` column as an image: a struct of `bytes` and `path`,
declared in the schema's metadata. A Parquet file cannot grow after a kill, since its index comes
last. So samples are staged in a tar (`tar_samples.py`), and a whole shard is converted at once.
"""

from __future__ import annotations

import io
import itertools
import json
import os
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import IO, Any

from synfer_rt.data.image_format import of_settings
from synfer_rt.data.writers.file_shards import ShardFormat
from synfer_rt.data.writers.tar_samples import members
from synfer_rt.records import ARROW, FILE_NAME, Record, Value, blank_record, fields_of

_MAGIC = b"PAR1"
_ROW_GROUP = 256  # rows that a reader must hold at once


def shard_format(settings: Mapping[str, Any]) -> ShardFormat:
    """How the shards of a run are written: `OUT/data-00000.parquet`, `OUT/data-00001.parquet`, …"""
    return ShardFormat(
        name_of,
        _records,
        read_shard,
        _is_whole,
        _has_end,
        lambda number: f"data-{number:05d}.tar",
        partial(_to_parquet, schema(settings)),
        of_settings(settings),
    )


def _to_parquet(schema: Any, tar: Path, target: IO[bytes]) -> None:
    _, parquet = _pyarrow()
    with tar.open("rb") as source:
        found = members(source)
        rows = (
            (image, text) for (_, image), (_, text), _ in zip(found, found, found, strict=False)
        )
        with parquet.ParquetWriter(target, schema) as writer:
            while group := list(itertools.islice(rows, _ROW_GROUP)):
                writer.write_table(_table(schema, *zip(*group, strict=True)))


def _table(schema: Any, images: Sequence[bytes], lines: Sequence[bytes]) -> Any:
    """A pyarrow.Table of samples. Arrow reads the records, without the interpreter's lock."""
    arrow, _ = _pyarrow()
    reader, text = import_module("pyarrow.json"), b"\n".join(lines)
    records = reader.read_json(
        io.BytesIO(text),
        reader.ReadOptions(use_threads=False, block_size=len(text) + 1),
        reader.ParseOptions(arrow.schema(list(schema)[1:]), False, "ignore"),
    )
    names = records[FILE_NAME.name].combine_chunks()
    image = arrow.StructArray.from_arrays([arrow.array(images), names], ["bytes", "path"])
    return arrow.table([image, *records.columns], schema)


def _pyarrow() -> tuple[Any, Any]:
    """pyarrow and pyarrow.parquet, imported late as they load slowly; they declare no types."""
    return import_module("pyarrow"), import_module("pyarrow.parquet")


def name_of(number: int) -> str:
    """The file name of a shard."""
    return f"data-{number:05d}.parquet"


def schema(settings: Mapping[str, Any]) -> Any:
    """The pyarrow.Schema of a run: `image` and `file_name`, then the fields of its records."""
    arrow, _ = _pyarrow()

    def of(value: Value) -> Any:
        if isinstance(value, dict):
            return arrow.struct([(name, of(part)) for name, part in value.items()])
        return arrow.type_for_alias(ARROW[type(value)])

    image = arrow.struct([("bytes", arrow.binary()), ("path", arrow.string())])
    fields = blank_record(settings["classes"], settings["au_vocabulary"], fields_of(settings))
    columns = {FILE_NAME.name: FILE_NAME.empty, **fields}
    features = {"info": {"features": {"image": {"_type": "Image"}}}}
    return arrow.schema(
        [("image", image), *((name, of(value)) for name, value in columns.items())],
        {"huggingface": json.dumps(features)},
    )


def read(out: Path) -> Iterator[tuple[Record, bytes]]:
    """Every sample of a finished run, by index: its record and its image file's bytes."""
    for path in sorted(out.glob("data-*.parquet")):
        yield from read_shard(path)


def _is_whole(path: Path, samples: int) -> bool:
    """Whether a shard's footer, which is written last, counts so many rows."""
    try:
        with path.open("rb") as file:  # pyarrow takes no path that is not UTF-8
            return _footer(file).num_rows == samples
    except OSError:
        return False


def _has_end(file: IO[bytes], indices: range) -> bool:
    """The same of a file that is read from afar, and whether its last row has the last index.

    Only the footer is read, which knows the largest value of each column. Behind it are its length,
    in four bytes, and PAR1, with which the file begins, too.
    """
    size = file.seek(0, os.SEEK_END)
    file.seek(max(size - 8, 0))
    end = file.read(8)
    length = int.from_bytes(end[:4], "little")
    if end[4:] != _MAGIC or length > size - 8:
        return False
    file.seek(size - 8 - length)
    footer = file.read(length)  # before it is parsed, whose errors are others
    try:
        found = _footer(io.BytesIO(_MAGIC + footer + end))
        group = found.row_group(found.num_row_groups - 1)
        columns = map(group.column, range(group.num_columns))
        largest = [x.statistics.max for x in columns if x.path_in_schema == "index"]
    except (OSError, AttributeError):
        return False
    return found.num_rows == len(indices) and largest == [indices[-1]]


def _footer(file: IO[bytes]) -> Any:
    """A shard's footer, a pyarrow.parquet.FileMetaData; OSError if it is damaged."""
    _, parquet = _pyarrow()
    with _damage_as_oserror():
        return parquet.read_metadata(file)


def _records(path: Path) -> Iterator[Record]:
    """The records of a shard; images are not read."""
    _, parquet = _pyarrow()
    with _damage_as_oserror(), path.open("rb") as stream, parquet.ParquetFile(stream) as file:
        columns = [name for name in file.schema_arrow.names if name != "image"]
        for batch in file.iter_batches(_ROW_GROUP, columns=columns):
            yield from batch.to_pylist()


def read_shard(path: Path) -> Iterator[tuple[Record, bytes]]:
    """Every sample of a shard: its record and its image file's bytes, none where it has no image.

    Raises OSError for a damaged file, KeyError for one that has no column `image`.
    """
    _, parquet = _pyarrow()
    with _damage_as_oserror(), path.open("rb") as stream, parquet.ParquetFile(stream) as file:
        for batch in file.iter_batches(_ROW_GROUP):
            for row in batch.to_pylist():
                image = row.pop("image")
                yield row, (image and image.get("bytes")) or b""


@contextmanager
def _damage_as_oserror() -> Generator[None]:
    """Raise what pyarrow raises for a damaged file as an OSError, as for one that is gone."""
    arrow, _ = _pyarrow()
    try:
        yield
    except arrow.ArrowException as error:
        raise OSError(str(error)) from error
