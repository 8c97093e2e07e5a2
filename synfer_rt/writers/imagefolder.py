"""The imagefolder format: a PNG per sample in its label's folder, and `metadata.jsonl`.

This is the layout of Hugging Face's ImageFolder and of torchvision's. While a run goes on, the
metadata is a journal, `metadata.jsonl.partial` in the run's own folder: an image is synced before
its line is written, so a line vouches for its image, and the journal gets its final name when the
last line is there.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from synfer_rt.writers import run_file
from synfer_rt.writers.atomic import commit, disk_errors, open_growing, partial, write_whole

METADATA = "metadata.jsonl"


class ImageFolderWriter:
    """Writes `OUT/<label>/<index:08d>.png` and `OUT/metadata.jsonl`; see `Writer`."""

    def __init__(self, out: Path, settings: Mapping[str, Any]) -> None:
        self.out, self.count = out, run_file.count(settings)
        self._metadata = out / METADATA
        self._growing = run_file.folder(out) / METADATA
        self._journal = None
        # Syncing a small file is waiting for the disk: several at once wait together.
        self._pool = ThreadPoolExecutor(8, "save")
        if self._metadata.exists():
            self.done = self.count
            return
        with disk_errors(self._metadata):
            self._journal = open_growing(self._growing)
            self.done, length = self._whole_lines(self._journal)
            self._journal.truncate(length)
            self._journal.seek(length)

    def _whole_lines(self, lines: Iterable[bytes]) -> tuple[int, int]:
        """How many leading lines have their sample on the disk, and their length in bytes."""
        number = length = 0
        for line in lines:
            try:
                record = json.loads(line) if line.endswith(b"\n") else {}
                sample = self.out / record["file_name"]
                whole = record["index"] == number and sample.is_file()
            except (ValueError, LookupError, TypeError, RecursionError, OSError):
                whole = False
            if not whole:
                return number, length
            number += 1
            length += len(line)
        return number, length

    def records(self) -> Iterator[dict[str, Any]]:
        """The records of the samples that are there."""
        path = partial(self._growing) if self._journal else self._metadata
        with path.open(encoding="utf-8") as lines:
            yield from map(json.loads, lines)

    def write(self, records: Sequence[Mapping[str, Any]], pngs: Sequence[bytes]) -> None:
        """Write the next samples in the order of their indices."""
        assert self._journal is not None
        names = [f"{record['label']}/{record['index']:08d}.png" for record in records]
        with disk_errors(self.out):
            for folder in {self.out / record["label"] for record in records}:
                folder.mkdir(exist_ok=True)
            paths = [self.out / name for name in names]
            staging = [self._growing.parent] * len(paths)
            list(self._pool.map(write_whole, paths, pngs, staging))
            for name, record in zip(names, records, strict=True):
                line = json.dumps({"file_name": name, **record}, ensure_ascii=False)
                self._journal.write(line.encode() + b"\n")
            self._journal.flush()
            os.fsync(self._journal.fileno())
        self.done += len(records)

    def finish(self) -> None:
        """Give the metadata its final name."""
        if self.done < self.count:
            run_file.end(self.out, self.done)
            self.count = self.done
        if self._journal is not None:
            with disk_errors(self._metadata):
                commit(self._journal, self._metadata, self._growing)
        self.close()

    def close(self) -> None:
        """Stop; what is written stays for a run with --resume."""
        self._pool.shutdown()
        if self._journal is not None:
            with disk_errors(self._metadata):
                self._journal.close()


def read(out: Path) -> Iterator[tuple[dict[str, Any], bytes]]:
    """Every sample of a finished run, by index: its record and its PNG file's bytes."""
    with (out / METADATA).open(encoding="utf-8") as lines:
        for line in lines:
            record = json.loads(line)
            yield record, (out / record["file_name"]).read_bytes()
