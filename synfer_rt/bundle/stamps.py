"""Whether a file may have changed, without reading it."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple


class Stamp(NamedTuple):
    """What a file's system says of it; two that are equal are of the same bytes.

    `changed` also moves where only rights or links did, and where `modified` was set back.
    """

    size: int
    inode: int
    modified: int
    changed: int


def stamp(file: Path) -> Stamp | None:
    """The stamp of a file; None where it is not there."""
    try:
        found = file.stat()
    except OSError:
        return None
    return Stamp(found.st_size, found.st_ino, found.st_mtime_ns, found.st_ctime_ns)
