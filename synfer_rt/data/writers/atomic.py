"""Files that are either whole under their final name or not there at all.

Everything is written under `<name>.partial`, in the same folder or another of the same file system,
synced, and renamed: POSIX and Windows both make the replacement atomic. Where several processes may
write the same file, on whatever machines, each has a temporary name of its own.
"""

from __future__ import annotations

import errno
import itertools
import os
import re
import secrets
import socket
import tempfile
from collections.abc import Callable, Generator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from synfer_rt.errors import UserError

_REMEDIES = {
    errno.ENOSPC: "free some space",
    errno.EDQUOT: "raise the quota or free some space",
    errno.EFBIG: "raise the limit on file sizes",
    errno.EIO: "check the disk",
}
_RUN, _CALLS = secrets.token_hex(4), itertools.count(1)
_REMOVALS = 4
"""So many processes may finish a run while another writes a small file."""
OWN = "*.by-*.partial"
"""What `own` names match."""


@contextmanager
def disk_errors(path: Path, argument: str = "out", *, resumes: bool = True) -> Generator[None]:
    """Turn an OSError of the block into a UserError that names the path and the remedy.

    `argument` gave the path, and `resumes` tells whether what was begun can be continued.
    """
    try:
        yield
    except OSError as error:
        reason = error.strerror or str(error)
        remedy, again = f"choose another `{argument}`", "continue with `resume=True`"
        if error.errno == errno.ENAMETOOLONG:
            remedy = f"choose a shorter path for `{argument}`"
        elif cure := _REMEDIES.get(error.errno or 0):
            remedy = f"{cure}, then {again if resumes else 'repeat it'}"
        raise UserError(f"Cannot write {error.filename or path} ({reason}); {remedy}.") from error


def check_writable(path: Path, argument: str = "out") -> None:
    """Raise UserError, before hours of work, if a file cannot be written at `path`.

    The folder is made if it is not there; what is at `path` stays.
    """
    with disk_errors(path, argument, resumes=False):
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=path.parent):
                pass
        except OSError as error:
            error.filename = str(path)  # not a temporary name, nor a folder's
            raise


def partial(path: Path) -> Path:
    """The temporary name of a file, in the same folder."""
    return path.with_name(path.name + ".partial")


def own_suffix() -> str:
    """What may follow a file's name while it is written; no other call or process gives it."""
    # Machines that share a file system may have the same name, or reuse a process's number.
    machine = re.sub(r"[^0-9A-Za-z-]", "-", socket.gethostname())[:40]
    return f".by-{machine}-{os.getpid()}-{_RUN}-{next(_CALLS)}.partial"


def own(path: Path) -> Path:
    """A temporary name of a file, in the same folder, that no other call or process gives."""
    return path.with_name(path.name + own_suffix())


def publish(grown: Path, path: Path, is_whole: Callable[[], bool]) -> None:
    """Give the synced file `grown` its final name, `path`, unless a whole file has it.

    Whichever process comes first has the name; this needs no lock. `is_whole` tells whether what is
    there is whole, and it is replaced if it is not.
    """
    try:
        os.link(grown, path)
    except OSError:  # the name is taken, or the file system has no links
        if not is_whole():
            os.replace(grown, path)
    grown.unlink(missing_ok=True)


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


def write_whole(path: Path, data: bytes, grown: str | Path | None = None) -> None:
    """Write `data` so that `path` never holds anything but all of it; OSError passes through.

    The temporary file is `grown`, by default `partial(path)`.
    """
    # Without Paths and `commit`, which take long for thousands of small files a second.
    grown = grown or f"{path}.partial"
    with open(grown, "wb", buffering=0) as file:
        left = memoryview(data)
        while left:
            left = left[file.write(left) :]
        os.fsync(file.fileno())
    os.replace(grown, path)


def write_beside_others(path: Path, data: bytes, folder: Path) -> None:
    """Write `data` as `write_whole` does, while other processes may do the same.

    The temporary file is in `folder`, a run's own, whose temporary files a process removes that
    finishes the run.
    """
    for _ in range(_REMOVALS):
        with suppress(FileNotFoundError):
            return write_whole(path, data, own(folder / path.name))
    return write_whole(path, data, own(folder / path.name))


def write_unless_there(path: Path, data: bytes, folder: Path) -> None:
    """`write_beside_others`, unless `path` holds `data`: then it may be read-only."""
    try:
        there = path.read_bytes()
    except OSError:
        there = None
    if there != data:
        write_beside_others(path, data, folder)
