"""Files that are either whole under their final name or not there at all.

Everything is written under `<name>.partial`, in the same folder or another of the same file system,
synced, and renamed: POSIX and Windows both make the replacement atomic.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from synfer_rt.errors import UserError

_REMEDIES = {
    errno.ENOSPC: "free some space, then run the same command with --resume",
    errno.EDQUOT: "raise the quota or free some space, then run the same command with --resume",
    errno.EFBIG: "raise the limit on file sizes, then run the same command with --resume",
    errno.EIO: "check the disk, then run the same command with --resume",
    errno.ENAMETOOLONG: "choose a shorter path with --out",
}


@contextmanager
def disk_errors(path: Path) -> Generator[None]:
    """Turn an OSError of the block into a UserError that names the path and the remedy."""
    try:
        yield
    except OSError as error:
        reason = error.strerror or str(error)
        remedy = _REMEDIES.get(error.errno or 0, "choose another directory with --out")
        raise UserError(f"Cannot write {error.filename or path} ({reason}); {remedy}.") from error


def partial(path: Path) -> Path:
    """The temporary name of a file, in the same folder."""
    return path.with_name(path.name + ".partial")


def open_growing(path: Path) -> IO[bytes]:
    """Open `partial(path)` to read and append, made if need be, for this process alone.

    Raises UserError when another process has it open in this way: two runs that grow one file
    would tear it. Where the system has no file locks, that is not noticed.
    """
    # Made and opened at once: between the two another run's end could take the name away.
    flags = os.O_RDWR | os.O_CREAT | getattr(os, "O_BINARY", 0)
    file = os.fdopen(os.open(partial(path), flags, 0o666), "r+b")
    try:
        import fcntl

        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.close()
        raise UserError(
            f"Another synfer-rt is writing {path}; wait for it to end, or choose another "
            "directory with --out."
        ) from None
    except (ImportError, OSError):
        pass
    return file


def commit(file: IO[bytes], path: Path, grown: Path | None = None) -> None:
    """Sync and close an open file, and give it its final name.

    It is that of `partial(grown)`, where `grown` is `path` unless it lies in another folder.
    """
    file.flush()
    os.fsync(file.fileno())
    if os.name == "nt":  # where no open file can be renamed
        file.close()
    os.replace(partial(grown or path), path)
    file.close()  # only now, for its lock is what keeps others from the temporary name


def write_whole(path: Path, data: bytes, staging: Path | None = None) -> None:
    """Write `data` so that `path` never holds anything but all of it; OSError passes through.

    The temporary file lies in the folder `staging`, by default that of `path`.
    """
    grown = (staging or path.parent) / path.name
    with partial(grown).open("wb") as file:
        file.write(data)
        commit(file, path, grown)
