"""How images are read, for every job that reads some."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TypedDict


class ReadingSettings(TypedDict, total=False):
    """How images are read and aligned, and what their labels mean; `Model.label` describes it.

    Leave one out, or give None, for its default.
    """

    label_scheme: str | Sequence[str] | Path | None
    split: str | None
    align: bool | None
    face: str | None
    face_detector: str | Path | None


DEFAULTS: ReadingSettings = {"align": False}
"""The defaults that are not None."""
