"""A clone stays small: what is tracked weighs less than 60 MB."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
MOST_BYTES = 60_000_000


def test_the_tracked_files_weigh_less_than_60_mb() -> None:
    if shutil.which("git") is None or not (ROOT / ".git").exists():
        pytest.skip("needs git and a clone")
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True)
    files = [ROOT / name for name in listed.stdout.decode().split("\0") if name]
    sizes = {file: file.stat().st_size for file in files if file.is_file()}
    largest = sorted(sizes, key=lambda file: -sizes[file])[:5]
    assert sum(sizes.values()) < MOST_BYTES, largest
