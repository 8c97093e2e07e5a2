"""Paths as users give them: one that the system will not look at is refused in a sentence."""

from __future__ import annotations

import errno
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from synfer_rt.errors import UserError

_REMEDIES = {
    errno.EACCES: "mend the permissions of its folder",
    errno.ENAMETOOLONG: "give it a shorter name",
    errno.ELOOP: "mend its links",
}


def is_folder(path: Path) -> bool:
    """Whether a folder is at `path`, or where it links to. Raises UserError if nobody can say."""
    with _refused(path):
        try:
            return stat.S_ISDIR(path.stat().st_mode)
        except (FileNotFoundError, NotADirectoryError):
            return False


def resolved(path: Path) -> Path:
    """The absolute path without links. Raises UserError for links that lead in a circle."""
    with _refused(path):
        return path.resolve()


@contextmanager
def _refused(path: Path) -> Iterator[None]:
    try:
        yield
    except (OSError, RuntimeError) as error:  # before Python 3.13 a circle is a RuntimeError
        number = getattr(error, "errno", None) or errno.ELOOP
        reason = getattr(error, "strerror", None) or "its links lead in a circle"
        remedy = _REMEDIES.get(number, "choose another path")
        raise UserError(f"{path} cannot be looked at ({reason}); {remedy}.") from None
