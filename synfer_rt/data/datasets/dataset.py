"""A dataset that has been read."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from synfer_rt.data.datasets.items import Item, Skipped
from synfer_rt.paths import is_folder


@dataclass(frozen=True)
class Dataset:
    """The images of the dataset at `path`, in a fixed order, and its parts that are not used.

    `format` is a key of FORMATS, or several with `+` between them.
    """

    path: Path
    format: str
    items: tuple[Item, ...]
    skipped: tuple[Skipped, ...] = ()

    @property
    def root(self) -> Path:
        """The folder that names begin at."""
        return self.path if is_folder(self.path) else self.path.parent

    def counts(self) -> dict[str, int]:
        """The number of images by label, of those that have one."""
        return dict(Counter(item.label for item in self.items if item.label is not None))

    @property
    def digest(self) -> str:
        """SHA-256 of names, labels and files in their order: it changes if the dataset does.

        A file counts by its size and its time of change, so that it need not be read. What is not
        used counts by its name; the reason is a sentence, which another release may put otherwise.
        """
        stamps = {file: _stamp(file) for file in {item.file for item in self.items}}
        listed: list[Sequence[str | int | None]] = [
            [item.name, item.label, item.written, *stamps[item.file]] for item in self.items
        ]
        listed += [[entry.name] for entry in self.skipped]
        return hashlib.sha256(json.dumps(listed).encode()).hexdigest()


def _stamp(file: Path) -> tuple[int, ...]:
    try:
        found = file.stat()
    except OSError:
        return ()
    return found.st_size, found.st_mtime_ns
