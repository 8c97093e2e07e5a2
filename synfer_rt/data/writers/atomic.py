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
    errno.ENOSPC: "free some space, then continue with `resume=True`",
    errno.EDQUOT: "raise the quota or free some space, then continue with `resume=True`",
    errno.EFBIG: "raise the limit on file sizes, then continue with `resume=True`",
    errno.EIO: "check the disk, then continue with `resume=True`",
    errno.ENAMETOOLONG: "choose a shorter path for `out`",
}


@contextmanager
def disk_errors(path: Path) -> Generator[None]:
    """Turn an OSError of the block into a UserError that names the path and the remedy."""
    try:
        yield
    except OSError as error:
        reason = error.strerror or str(error)
        remedy = _REMEDIES.get(error.errno or 0, "choose another `out`")
        raise UserError(f"Cannot write {error.filename or path} ({reason}); {remedy}.") from error


def partial(path: Path) -> Path:
    """The temporary name of a file, in the same folder."""
    return path.with_name(path.name + ".partial")


def open_growing(path: Path) -> IO[bytes]:
    """Open `partial(path)` for reading and appending, and create it if needed.

    Raises UserError if another process has opened it in this way: two runs that write to one file
    would tear it. This is not noticed on a system without file locks.
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
            f"Another synfer-rt is writing {path}; wait for it to end, or choose another `out`."
        ) from None
    except (ImportError, OSError):
        pass
    return file


def commit(file: IO[bytes], path: Path, grown: Path | None = None) -> None:
    """Sync and close the open file `partial(grown)`, and give it its final name, `path`.

    `grown` is `path` unless the file grew in another folder.
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
    # Without Paths and `commit`, which take long for thousands of small files a second.
    folder, name = os.path.split(path)
    grown = os.path.join(staging or folder, f"{name}.partial")
    with open(grown, "wb", buffering=0) as file:
        left = memoryview(data)
        while left:
            left = left[file.write(left) :]
        os.fsync(file.fileno())
    os.replace(grown, path)
