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

from synfer_rt.writers.atomic import commit, partial
from synfer_rt.writers.webdataset import ShardWriter, samples

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
            lambda number: f"data-{number:05d}.parquet",
            _read_shard,
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


def schema(settings: Mapping[str, Any]) -> pa.Schema:
    """The columns of a run: those of its records, `image` before them.

    `probabilities` has a field per class, `aus` one per unit of the vocabulary.
    """
    import pyarrow as pa

    classes, vocabulary = settings["classes"], settings["au_vocabulary"]

    def struct(names: list[str]) -> pa.DataType:
        return pa.struct([(name, pa.float64()) for name in names])

    columns = {
        "image": pa.struct([("bytes", pa.binary()), ("path", pa.string())]),
        "file_name": pa.string(),
        "index": pa.int64(),
        "seed": pa.int64(),
        "requested_label": pa.string(),
        "label": pa.string(),
        "label_scheme": pa.string(),
        "probabilities": struct(classes),
        "rectified": pa.bool_(),
        "accepted": pa.bool_(),
        "prompt": pa.string(),
        "negative_prompt": pa.string(),
        "aus": struct(vocabulary) if vocabulary else pa.null(),
        "guidance": pa.float64(),
        "au_scale": pa.float64(),
        "solver": pa.string(),
        "steps": pa.int64(),
        "layout": pa.int64(),
        "layout_strength": pa.float64(),
        "bundle": pa.string(),
    }
    if settings.get("photo_set") is not None:
        columns |= {"source": pa.string(), "source_sha256": pa.string()}
    if settings.get("semantic_guidance") is not None:
        fields = {"form": pa.string(), "strength": pa.float64(), "start": pa.float64()}
        columns["semantic_guidance"] = pa.struct([*fields.items(), ("every", pa.int64())])
    if settings.get("command") == "augment":
        columns |= {
            "origin": pa.string(),
            "source": pa.string(),
            "noise_scale": pa.float64(),
            "attempt": pa.int64(),
        }
    features = {"info": {"features": {"image": {"_type": "Image"}}}}
    return pa.schema(list(columns.items()), {"huggingface": json.dumps(features)})


def read(out: Path) -> Iterator[tuple[dict[str, Any], bytes]]:
    """Every sample of a finished run, by index: its record and its PNG file's bytes."""
    for path in sorted(out.glob("data-*.parquet")):
        yield from _read_shard(path)


def _read_shard(path: Path) -> Iterator[tuple[dict[str, Any], bytes]]:
    import pyarrow.parquet as pq

    with pq.ParquetFile(path) as file:
        for batch in file.iter_batches(_ROW_GROUP):
            for row in batch.to_pylist():
                yield row, row.pop("image")["bytes"]
