"""Datasets in archives: Parquet files and WebDataset's tars, read in place, nothing unpacked."""

from __future__ import annotations

import json
import tarfile
from collections.abc import Mapping, Sequence
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

from synfer_rt.datasets.items import (
    IMAGES,
    UNLABELLED,
    Found,
    Item,
    Label,
    Skipped,
    label_of,
)
from synfer_rt.datasets.splits import split_of, split_of_path


def webdataset(root: Path, files: Sequence[Path], label_scheme: str | None) -> Found:
    """Tars of `key.png`, `key.json` and `key.cls`; the JSON's label goes before the number."""
    for file in (file for file in files if file.suffix.lower() == ".tar"):
        shard = file.relative_to(root).as_posix()
        samples: dict[str, dict[str, tarfile.TarInfo]] = {}
        try:
            size = file.stat().st_size
            with tarfile.open(file, "r:") as tar:
                for member in tar:
                    # A sparse file's bytes do not lie together.
                    plain = member.isfile() and not member.issparse()
                    if not plain or not 0 <= member.size <= size - member.offset_data:
                        problem = "it is cut short" if plain else "it is no plain file"
                        yield Skipped(f"{shard}/{member.name}", problem)
                        continue
                    folder, _, name = member.name.rpartition("/")
                    key, _, extension = name.partition(".")
                    samples.setdefault(f"{folder}/{key}".lstrip("/"), {})[extension.lower()] = (
                        member
                    )
        except Exception as error:  # what is in a damaged header, tarfile takes at its word
            yield Skipped(shard, f"it is no whole, uncompressed tar ({error})")
        for key, members in samples.items():
            image = next((m for e, m in members.items() if f".{e}" in IMAGES), None)
            if image is None:
                yield Skipped(f"{shard}/{key}", "it has no image")
                continue
            texts = {e: _at(file, members[e]) for e in ("json", "cls") if e in members}
            label = _sample_label(texts, label_scheme)
            name = f"{shard}/{key}"
            yield Item(name, *label, split_of_path(name), file, partial(_at, file, image))


def _sample_label(texts: Mapping[str, bytes], label_scheme: str | None) -> Label:
    try:
        record = json.loads(texts.get("json", b"{}"))
        value = record.get("label")
    except (ValueError, AttributeError, RecursionError):
        return Label(None, "its JSON cannot be read")
    if value is not None:
        return label_of(value, record.get("label_scheme") or label_scheme)
    if "cls" in texts:
        return label_of(texts["cls"].decode("utf-8-sig", "replace"), label_scheme)
    return UNLABELLED


def _at(file: Path, member: tarfile.TarInfo) -> bytes:
    with file.open("rb") as stream:
        stream.seek(member.offset_data)
        return stream.read(member.size)


def parquet(root: Path, files: Sequence[Path], label_scheme: str | None) -> Found:
    """Parquet files with an `image` column (bytes) and, for labels, a `label` column."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    for file in (file for file in files if file.suffix.lower() == ".parquet"):
        shard = file.relative_to(root).as_posix()
        try:
            # Opened here because pyarrow takes no path that is not UTF-8.
            with file.open("rb") as stream, pq.ParquetFile(stream) as table:
                columns = table.schema_arrow.names
                if "image" not in columns:
                    raise pa.ArrowInvalid("it has no column image")
                names = _class_names(table.schema_arrow)
                split = split_of_path(f"{shard}/")
                wanted = [name for name in ("label", "label_scheme", "split") if name in columns]
                for group in range(table.num_row_groups):
                    count = table.metadata.row_group(group).num_rows
                    rows = table.read_row_group(group, wanted).to_pylist() or [{}] * count
                    for i, row in enumerate(rows):
                        label = _row_label(row, names, label_scheme)
                        own = split_of(str(row.get("split") or "")) or split
                        read = partial(_cell, file, group, i)
                        yield Item(f"{shard}/{group}-{i}", *label, own, file, read)
        except (pa.ArrowException, OSError, ValueError) as error:  # ValueError: text not in UTF-8
            yield Skipped(shard, f"it is no Parquet file of images ({error})")


def _row_label(row: Mapping[str, Any], names: Sequence[str], label_scheme: str | None) -> Label:
    value = row.get("label")
    if value is None:
        return UNLABELLED
    if isinstance(value, int) and 0 <= value < len(names):
        value = names[value]
    return label_of(value, row.get("label_scheme") or label_scheme)


def _class_names(schema: Any) -> Sequence[str]:
    """The names behind the numbers of a `label` column, as Hugging Face's `datasets` keeps them."""
    try:
        label = json.loads(schema.metadata[b"huggingface"])["info"]["features"]["label"]
        return label["names"] if isinstance(label["names"], list) else ()
    except (TypeError, KeyError, ValueError, RecursionError):
        return ()


def _cell(file: Path, group: int, row: int) -> bytes:
    import pyarrow as pa

    try:
        value = _images_of(file, group)[row].as_py()
    except (pa.ArrowException, ValueError) as error:
        raise OSError(f"the Parquet file is damaged: {error}") from None
    content = value.get("bytes") if isinstance(value, dict) else value
    if not isinstance(content, bytes):
        raise OSError("the Parquet file holds no bytes of it")
    return content


@lru_cache(maxsize=4)
def _images_of(file: Path, group: int) -> Any:
    import pyarrow.parquet as pq

    with file.open("rb") as stream, pq.ParquetFile(stream) as table:
        return table.read_row_group(group, ["image"]).column(0)
