"""A tiny bundle whose student makes images at the quality "fast"."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from synfer_rt.bundle import Bundle, write_manifest

FAST: dict[str, Any] = {
    "denoiser": "denoiser.distilled",
    "solver": "ddim",
    "steps": 2,
    "guidance": 3.0,
    "strengths": [0.9, 1.0],
}
"""What the student of `with_student` was distilled for."""


def with_student(
    branched: Bundle, directory: Path, default: str | None = "fast", **changes: Any
) -> Bundle:
    """A copy of a bundle that has the engine of a student, with the qualities that name it.

    `changes` are other fields of the quality "fast", without those that are None.
    """
    shutil.copytree(branched.path, directory)
    fields = {k: v for k, v in branched.manifest.items() if k not in ("format", "files")}
    fast = {name: value for name, value in (FAST | changes).items() if value is not None}
    fields["qualities"] = {"best": {"denoiser": "denoiser"}, "fast": fast}
    if default is not None:
        fields["defaults"] = {**fields["defaults"], "quality": default}
    return write_manifest(directory, fields)
