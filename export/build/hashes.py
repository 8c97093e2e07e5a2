"""Hashes of what an engine is made of: files, values and the code of the build side."""

from __future__ import annotations

import hashlib
import json
from functools import cache
from pathlib import Path
from typing import Any

from synfer_rt.bundle.files import file_entry

EXPORT = Path(__file__).parent.parent
"""The folder of `synfer_rt.export`."""


def sha256(file: Path) -> str:
    """SHA-256 of a file, in hexadecimal."""
    return file_entry(file)["sha256"]


def digest(*parts: Any) -> str:
    """SHA-256 of values that JSON can write (others by their str), in hexadecimal."""
    text = json.dumps(parts, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()


@cache
def code_hash(*files: str) -> str:
    """A hash of source files of `synfer_rt.export`, named by their paths in its folder."""
    return digest(*(sha256(EXPORT / name) for name in files))
