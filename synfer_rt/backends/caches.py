"""Folders of the user that keep what runtimes compiled."""

from __future__ import annotations

import os
from pathlib import Path

from synfer_rt.bundle import Bundle


def cache_home() -> Path:
    """The user's folder for files that can be made again."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "synfer-rt"


def cache_directory(runtime: str, bundle: Bundle) -> Path | None:
    """The folder in which a runtime keeps what it compiled of a bundle; None if not writable."""
    try:
        hash_ = bundle.hash_with(*bundle.engines)  # of all engines, for a runtime may use names
        directory = cache_home() / runtime / hash_
        directory.mkdir(parents=True, exist_ok=True)
    except (OSError, RuntimeError):  # a user without a home
        return None
    return directory if os.access(directory, os.W_OK) else None
