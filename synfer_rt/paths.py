"""Paths as users give them; a path that the system does not accept is a UserError."""

from __future__ import annotations

import errno
import os
import re
import stat
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

from synfer_rt.errors import UserError

Location = str | Path
"""A path on this machine, or, where a run is written and read, an address such as s3://bucket/x."""

_REMEDIES = {
    errno.EACCES: "change the permissions of its folder",
    errno.ENAMETOOLONG: "give it a shorter name",
    errno.ELOOP: "correct its links",
}

# Two letters at least, since C:/ is a path of Windows. Path merges several slashes into one.
_ADDRESS = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+):/+")
CREDENTIALS = re.compile(r"[^@]*:[^@]*@")
"""A name and password, which may have slashes, at the beginning of what follows a scheme."""
_TOOLS = {
    "http": "`curl`",
    "https": "`curl`",
    "hf": "`hf download` or `hf upload`",
    "s3": "`aws s3 sync`",
    "gs": "`gcloud storage rsync`",
}


def local(path: Any, name: str = "") -> Path:
    """The local path that a text or Path names.

    Raises UserError for an address such as s3://…, hf://… or https://…, which would otherwise
    become a folder `s3:`, for a value of another type, and for a text that no file can be named.
    The latter two name the argument `name`.
    """
    argument = f"`{name}`" if name else "A path"
    text: object = path
    if isinstance(path, os.PathLike):
        text = os.fspath(cast("os.PathLike[str]", path))
    if not isinstance(text, str):
        raise UserError(f"{argument} must be a text or a Path, got {path!r}.")
    try:
        possible = b"\0" not in os.fsencode(text)
    except UnicodeEncodeError:
        possible = False
    if not possible:
        raise UserError(f"{argument} must be a possible name of a file, got {text!r}.")
    found = _ADDRESS.match(text)
    if found is None:
        return Path(text)
    scheme, rest = found[1].lower(), text[found.end() :]
    if scheme == "file":
        raise UserError(f"{text} is an address; write the path alone, /{rest}.")
    tool = _TOOLS.get(scheme, "the tool of that service")
    if hidden := CREDENTIALS.match(rest):
        rest = f"…@{rest[hidden.end() :]}"
    raise UserError(
        f"{scheme}://{rest} is an address, not a path on this machine; give a local path, and copy "
        f"files from or to there with {tool}."
    )


def is_folder(path: Path) -> bool:
    """Whether `path` is a folder or links to one. Raises UserError if the system does not tell."""
    with _refused(path):
        try:
            return stat.S_ISDIR(path.stat().st_mode)
        except (FileNotFoundError, NotADirectoryError):
            return False


def whole_name(path: Path) -> Path:
    """The path, or the absolute one if it ends in no name, as `.` and `..` do. Raises UserError."""
    return path if path.name not in ("", "..") else resolved(path)


def resolved(path: Path) -> Path:
    """The absolute path without links. Raises UserError for links that form a circle."""
    with _refused(path):
        return path.resolve()


@contextmanager
def _refused(path: Path) -> Generator[None]:
    try:
        yield
    except (OSError, RuntimeError) as error:  # before Python 3.13 a circle is a RuntimeError
        number = getattr(error, "errno", None) or errno.ELOOP
        reason = getattr(error, "strerror", None) or "its links form a circle"
        remedy = _REMEDIES.get(number, "choose another path")
        raise UserError(f"{path} cannot be accessed ({reason}); {remedy}.") from None
