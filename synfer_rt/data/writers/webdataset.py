"""The webdataset format: tar shards of `<index>.png`, `<index>.json` and `<index>.cls`.

Images may also be `<index>.jpg` or `<index>.webp`. `.cls` is the label's index in its scheme.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from synfer_rt.data.image_format import of_settings
from synfer_rt.data.writers.file_shards import ShardFormat
from synfer_rt.data.writers.tar_samples import has_end, is_whole, read_tar, records_of
from synfer_rt.records import Record


def name_of(number: int) -> str:
    """The file name of a shard."""
    return f"{number:06d}.tar"


def read(out: Path) -> Iterator[tuple[Record, bytes]]:
    """Every sample of a finished run, by index: its record and its image file's bytes."""
    for path in sorted(out.glob("*.tar")):
        yield from read_tar(path)


def shard_format(settings: Mapping[str, Any], name: Callable[[int], str] = name_of) -> ShardFormat:
    """How the shards of a run are written: `OUT/000000.tar`, `OUT/000001.tar`, …"""
    images = of_settings(settings)
    return ShardFormat(name, records_of, read_tar, is_whole, has_end, name, images=images)
