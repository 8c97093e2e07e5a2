"""The list of what a job left out of its input, and why."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from synfer_rt.data.writers import run_file
from synfer_rt.data.writers.atomic import disk_errors, write_unless_there

FILE = "skipped.jsonl"


def skipped_file(out: Path) -> Path:
    """Where the list of the run in `out` is; it need not be there."""
    return run_file.folder(out) / FILE


def write_skipped(out: Path, skipped: Sequence[tuple[str, str]]) -> Path:
    """Write skipped.jsonl in the folder that belongs to the run in `out`; returns its path.

    It has a line for each file, with its name and the reason. Raises UserError when the disk is
    full or not writable.
    """
    file = skipped_file(out)
    lines = [json.dumps({"file_name": name, "error": why}) for name, why in skipped]
    with disk_errors(out):
        write_unless_there(file, "".join(f"{line}\n" for line in lines).encode(), file.parent)
    return file
