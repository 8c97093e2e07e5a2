"""Paths as users give them: what the system will not look at is refused in a sentence."""

from __future__ import annotations

import errno
import os
import re
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from synfer_rt.errors import UserError

_REMEDIES = {
    errno.EACCES: "mend the permissions of its folder",
    errno.ENAMETOOLONG: "give it a shorter name",
    errno.ELOOP: "mend its links",
}

# Of two letters at least: C:/ is a path of Windows. Path makes one slash of several.
_ADDRESS = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+):/+")
_TOOLS = {
    "http": "`curl`",
    "https": "`curl`",
    "hf": "`hf download` or `hf upload`",
    "s3": "`aws s3 sync`",
    "gs": "`gcloud storage rsync`",
}


def local(path: Any) -> Path:
    """The path of this machine that a text or Path names.

    Raises UserError for an address such as s3://…, hf://… or https://…, of which a folder `s3:`
    would be made, and for what is no path.
    """
    if not isinstance(path, (str, os.PathLike)) or isinstance(os.fspath(path), bytes):
        raise UserError(f"{path!r} is no path; write it as a text or a Path.")
    text = os.fspath(path)
    found = _ADDRESS.match(text)
    if found is None:
        return Path(text)
    scheme, rest = found[1].lower(), text[found.end() :]
    if scheme == "file":
        raise UserError(f"{text} is an address; write the path alone, /{rest}.")
    tool = _TOOLS.get(scheme, "the tool of that service")
    raise UserError(
        f"{scheme}://{rest} is an address, not a path on this machine; give a local path, and copy "
        f"files from or to there with {tool}."
    )


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
