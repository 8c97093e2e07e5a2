"""Bundles whose manifest or files a test has changed."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from synfer_rt.bundle import MANIFEST


def change(directory: Path, edit: Callable[[dict[str, Any]], object]) -> None:
    """Edit the manifest in place."""
    fields = json.loads((directory / MANIFEST).read_text())
    edit(fields)
    (directory / MANIFEST).write_text(json.dumps(fields))


def rehash(directory: Path, name: str) -> None:
    """Make the manifest agree with a changed file."""
    data = (directory / name).read_bytes()
    entry = {"sha256": hashlib.sha256(data).hexdigest(), "bytes": len(data)}
    change(directory, lambda fields: fields["files"].update({name: entry}))
