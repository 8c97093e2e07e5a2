"""The parquet format: `data-00000.parquet`, … with the image's bytes and every column.

Hugging Face's `datasets` decodes the `image` column as an image: a struct of `bytes` and `path`,
declared in the schema's metadata. A parquet file cannot grow after a kill (its index comes last),
so samples are staged in a tar, as in `webdataset.py`, and a whole shard is converted at once.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from synfer_rt.data.writers.atomic import commit, partial
from synfer_rt.data.writers.webdataset import ShardWriter, samples
from synfer_rt.records import blank

if TYPE_CHECKING:
    import pyarrow as pa

_ROW_GROUP = 256  # rows that a reader must hold at once


class ParquetWriter(ShardWriter):
    """Writes `OUT/data-00000.parquet`, `OUT/data-00001.parquet`, …"""

    def __init__(self, out: Path, settings: Mapping[str, Any]) -> None:
        self._schema = schema(settings)
        super().__init__(
            out,
            settings,
            name_of,
            read_shard,
            _is_whole,
            lambda number: f"data-{number:05d}.tar",
            self._to_parquet,
        )

    def _to_parquet(self, tar: Path, path: Path) -> None:
        import pyarrow as pa
        import pyarrow.parquet as pq

        grown = tar.with_name(path.name)
        with tar.open("rb") as source, partial(grown).open("wb") as target:
            rows = ({"image": _image(record, png), **record} for record, png, _ in samples(source))
            with pq.ParquetWriter(target, self._schema) as writer:
                while group := list(itertools.islice(rows, _ROW_GROUP)):
                    writer.write_table(pa.Table.from_pylist(group, self._schema))
            commit(target, path, grown)


def _image(record: Mapping[str, Any], png: bytes) -> dict[str, Any]:
    return {"bytes": png, "path": record["file_name"]}


def name_of(number: int) -> str:
    """The file name of a shard."""
    return f"data-{number:05d}.parquet"


def schema(settings: Mapping[str, Any]) -> pa.Schema:
    """The columns of a run: those of its records, `image` and `file_name` before them."""
    import pyarrow as pa

    types = {
        str: pa.string(),
        bool: pa.bool_(),
        int: pa.int64(),
        float: pa.float64(),
        bytes: pa.binary(),
    }

    def of(value: Any) -> pa.DataType:
        if isinstance(value, dict):
            return pa.struct([(name, of(field)) for name, field in value.items()])
        return types[type(value)]

    columns = {
        "image": {"bytes": b"", "path": ""},
        "file_name": "",
        **blank(settings["classes"], settings["au_vocabulary"]),
    }
    features = {"info": {"features": {"image": {"_type": "Image"}}}}
    return pa.schema(
        [(name, of(value)) for name, value in columns.items()],
        {"huggingface": json.dumps(features)},
    )


def read(out: Path) -> Iterator[tuple[dict[str, Any], bytes]]:
    """Every sample of a finished run, by index: its record and its PNG file's bytes."""
    for path in sorted(out.glob("data-*.parquet")):
        yield from read_shard(path)


def _is_whole(path: Path, samples: int) -> bool:
    """Whether a shard's footer, which is written last, counts so many rows."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with path.open("rb") as file:  # pyarrow takes no path that is not UTF-8
            return pq.read_metadata(file).num_rows == samples
    except (OSError, pa.ArrowException):
        return False


def read_shard(path: Path) -> Iterator[tuple[dict[str, Any], bytes]]:
    """Every sample of a shard: its record and its PNG file's bytes, none where it has no image."""
    import pyarrow.parquet as pq

    with path.open("rb") as stream, pq.ParquetFile(stream) as file:
        for batch in file.iter_batches(_ROW_GROUP):
            for row in batch.to_pylist():
                image = row.pop("image") or {}
                yield row, image.get("bytes") or b""
