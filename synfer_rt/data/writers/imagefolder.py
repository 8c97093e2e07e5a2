"""The imagefolder format: an image per sample in its label's folder, and `metadata.jsonl`.

Hugging Face's ImageFolder and torchvision's read it. During a run the metadata is a journal,
`metadata.jsonl.partial` in the run's own folder. An image is synced before its line is written, so
a line guarantees its image. With the last line the journal gets its final name.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial as partial_of
from pathlib import Path
from typing import IO, Any

from synfer_rt.data.image_format import ImageFormat, of_settings
from synfer_rt.data.writers import run_file
from synfer_rt.data.writers.atomic import commit, disk_errors, open_growing, partial, write_whole
from synfer_rt.data.writers.image_check import has_both_ends
from synfer_rt.errors import UserError
from synfer_rt.records import Record, json_object, metadata

METADATA = "metadata.jsonl"


class ImageFolderWriter:
    """Writes `OUT/<label>/<index:08d>.png` (.jpg, .webp) and `OUT/metadata.jsonl`; see `Writer`."""

    missing, deferred = 0, False

    def __init__(self, out: Path, settings: Mapping[str, Any]) -> None:
        self.out, self.count = out, run_file.count(settings)
        self.image_format = of_settings(settings)
        self._metadata = out / METADATA
        self._growing = run_file.folder(out) / METADATA
        self._journal: IO[bytes] | None = None
        # Syncing a small file is waiting for the disk: several at once wait together.
        self._pool = ThreadPoolExecutor(8, "save")
        with disk_errors(self._metadata):
            names = self._names_of_whole_metadata()
            if names is None:
                self._journal = open_growing(self._growing)
                names, length = whole_lines(self._journal, self.image_format)
                self._journal.truncate(length)
                self._journal.seek(length)
        files = [out / name for name in names]
        whole = self._pool.map(partial_of(has_both_ends, format=self.image_format), files)
        pairs = enumerate(zip(names, whole, strict=True))
        self._lost = {index: name for index, (name, good) in pairs if not good}
        self._lines = len(names)
        rest = range(self._lines, self.count)
        self.lacking: Sequence[int] = [*self._lost, *rest] if self._lost else rest
        self._first = self.lacking[0] if self.lacking else self.count
        self.done = self._lines - len(self._lost)

    def _names_of_whole_metadata(self) -> list[str] | None:
        """The images that the metadata names; None if it does not exist or is no longer whole.

        It is then a journal again, and missing samples are made again.
        """
        if not self._metadata.exists():
            return None
        with self._metadata.open("rb") as lines:
            names, length = whole_lines(lines, self.image_format)
        if len(names) == self.count and length == self._metadata.stat().st_size:
            return names
        self._metadata.replace(partial(self._growing))
        return None

    def records(self) -> Iterator[Record]:
        """The records of the samples before the first that is lacking."""
        path = partial(self._growing) if self._journal else self._metadata
        with path.open(encoding="utf-8") as lines:
            yield from map(json_object, itertools.islice(lines, self._first))

    def write(self, records: Sequence[Mapping[str, Any]], images: Sequence[bytes]) -> None:
        """Write samples in the order of their indices; lines that are there stay as they are."""
        names = [name_of(record, self.image_format) for record in records]
        for name, record in zip(names, records, strict=True):
            self._check_same(self._lost.get(record["index"], name), name)
        with disk_errors(self.out):
            write_images(self._pool, self.out, names, images, self._growing.parent)
            for name, record in zip(names, records, strict=True):
                if record["index"] < self._lines:
                    self.done += self._lost.pop(record["index"], None) is not None
                    continue
                assert self._journal is not None
                self._journal.write(metadata(record, name) + b"\n")
                self._lines += 1
                self.done += 1
            if self._journal is not None:
                self._journal.flush()
                os.fsync(self._journal.fileno())

    def _check_same(self, before: str, now: str) -> None:
        if before != now:
            raise UserError(
                f"{self.out / before} was lost, but its sample is now {now}: the model or the "
                "computation has changed; repeat the whole run with another `out`."
            )

    def finish(self) -> None:
        """Give the metadata its final name."""
        if self.done < self.count:
            run_file.end(self.out, self.done)
            self.count = self.done
        if self._journal is not None:
            with disk_errors(self._metadata):
                commit(self._journal, self._metadata, self._growing)
        run_file.clear(self.out)
        self.close()

    def close(self) -> None:
        """Stop; what is written stays for a run that resumes."""
        self._pool.shutdown()
        if self._journal is not None:
            with disk_errors(self._metadata):
                self._journal.close()


def name_of(record: Mapping[str, Any], format: ImageFormat) -> str:
    """Where the image of a record lies in the output."""
    return f"{record['label']}/{record['index']:08d}.{format.suffix}"


def write_images(
    pool: ThreadPoolExecutor,
    out: Path,
    names: Sequence[str],
    images: Sequence[bytes],
    staging: Path,
    suffix: str = ".partial",
) -> None:
    """Write the images with these names in `out`; temporary names end in `suffix`."""
    for label in {name.partition("/")[0] for name in names}:
        (out / label).mkdir(exist_ok=True)
    grown = [os.path.join(staging, name.rpartition("/")[2] + suffix) for name in names]
    list(pool.map(write_whole, [out / name for name in names], images, grown))


def whole_lines(
    lines: Iterable[bytes], format: ImageFormat, first: int = 0
) -> tuple[list[str], int]:
    """The images of the leading lines that are records in order, and the lines' length in bytes.

    The first has the index `first`; images are in `format`.
    """
    names: list[str] = []
    length = 0
    for line in lines:
        try:
            record = json_object(line if line.endswith(b"\n") else b"")
            name = name_of(record, format)
            whole = record["index"] == first + len(names) and record["file_name"] == name
        except (ValueError, LookupError, TypeError):
            break
        if not whole:
            break
        names.append(name)
        length += len(line)
    return names, length


def read(out: Path) -> Iterator[tuple[Record, bytes]]:
    """Every sample of a finished run, by index: its record and its image file's bytes."""
    with (out / METADATA).open(encoding="utf-8") as lines:
        for line in lines:
            record = json_object(line)
            yield record, (out / record["file_name"]).read_bytes()
