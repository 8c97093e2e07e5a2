"""A clone weighs less than 64 MB, and what is installed less than 60."""

from __future__ import annotations

import subprocess
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
MOST_BYTES = 64_000_000
MOST_INSTALLED = 60_000_000
INSTALLED = ("synfer_rt", "export", "engines", "bench")
MADE_HERE = ("build", "dist", "synfer-out", "__synfer-out__", "__pycache__")


def tracked_files() -> list[Path]:
    """The files that git tracks; in a copy without .git all but those that are made there."""
    if (ROOT / ".git").exists():
        command = ["git", "ls-files", "-z"]
        listed = subprocess.run(command, cwd=ROOT, capture_output=True, check=True).stdout
        return [file for name in listed.decode().split("\0") if (file := ROOT / name).is_file()]
    return [
        file
        for top in ROOT.iterdir()
        if not top.name.startswith(".") and top.name not in MADE_HERE
        for file in (top.rglob("*") if top.is_dir() else [top])
        if file.is_file() and file.parent.name not in MADE_HERE
    ]


def test_the_tracked_files_weigh_less_than_64_mb() -> None:
    sizes = {file: file.stat().st_size for file in tracked_files()}
    assert sizes[ROOT / "README.md"]
    largest = sorted(sizes, key=lambda file: -sizes[file])[:5]
    assert sum(sizes.values()) < MOST_BYTES, largest


def test_the_installed_package_weighs_less_than_60_mb() -> None:
    installed = [file for file in tracked_files() if file.relative_to(ROOT).parts[0] in INSTALLED]
    assert sum(file.stat().st_size for file in installed) < MOST_INSTALLED
