"""The error that a user can cause, and parts of its messages."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class UserError(Exception):
    """Bad input or a bad environment; the message is one sentence that names the remedy.

    The command prints it without a traceback and exits with code 2.
    """


def installing(extra: str = "") -> str:
    """The command that installs a missing package of `extra`, or of the plain installation."""
    what = f"'.[{extra}]'" if extra else "."
    return f"run `pip install {what}` in the root of a clone of synfer-rt"


def nearest(word: str, known: Iterable[str]) -> str:
    """The known name that is most similar to `word`, in upper or lower case."""
    names = {name.lower(): name for name in known}
    return names[difflib.get_close_matches(word.lower(), names, 1, 0.0)[0]]
