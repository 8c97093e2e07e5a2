"""The one error that a user can cause."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class UserError(Exception):
    """Bad input or environment: one clear sentence that names the remedy.

    The command prints it without a traceback and exits with code 2.
    """


def installing(extra: str = "") -> str:
    """What to run where a package is missing that `extra`, or the plain installation, brings."""
    what = f"'.[{extra}]'" if extra else "."
    return f"run `pip install {what}` in the root of a clone of synfer-rt"


def nearest(word: str, known: Iterable[str]) -> str:
    """The one of the known names that is most like `word`, in upper or lower case."""
    names = {name.lower(): name for name in known}
    return names[difflib.get_close_matches(word.lower(), names, 1, 0.0)[0]]
