"""Bundles whose files were changed by hand."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from synfer_rt.bundle import Bundle, write_manifest
from synfer_rt.bundle.identity import CHECKPOINT_INDEX


def rewritten(directory: Path, **changes: Any) -> Bundle:
    """The bundle in `directory` with other fields in its checkpoint.json."""
    file = directory / CHECKPOINT_INDEX
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))
    return with_new_hashes(directory)


def with_new_hashes(directory: Path) -> Bundle:
    fields = json.loads((directory / "bundle.json").read_text())
    return write_manifest(directory, {k: fields[k] for k in fields if k not in ("format", "files")})
