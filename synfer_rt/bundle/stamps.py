"""Stamps of files, which show that a file has not changed without reading it."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple


class Stamp(NamedTuple):
    """A file's size, inode and times; equal stamps mean equal bytes.

    `changed` also moves when permissions or links change, and when `modified` is set back.
    """

    size: int
    inode: int
    modified: int
    changed: int


def stamp(file: Path) -> Stamp | None:
    """The stamp of a file; None if it does not exist."""
    try:
        found = file.stat()
    except OSError:
        return None
    return Stamp(found.st_size, found.st_ino, found.st_mtime_ns, found.st_ctime_ns)
