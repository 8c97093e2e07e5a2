"""A bundle of the tiny checkpoint with AUs, to build again."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

pytest.importorskip("diffusers", reason="the build side needs synfer-rt[export]")

from synfer_rt.bundle import Bundle
from synfer_rt.export.build.whole_bundle import Source


@pytest.fixture
def mini(mini_checkpoint: Path, mini_bundle: Bundle, tmp_path: Path) -> tuple[Source, Path]:
    """A checkpoint and the bundle that was built of it, to change."""
    checkpoint = Path(shutil.copytree(mini_checkpoint, tmp_path / "checkpoint"))
    return Source(checkpoint), Path(shutil.copytree(mini_bundle.path, tmp_path / "out"))
