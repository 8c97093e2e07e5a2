"""The same files as people have them: copied, under a second name, or in the Hugging Face cache."""

from __future__ import annotations

import hashlib
import os
import shutil
from pathlib import Path

LAYOUTS = ("copies", "hard links", "cache")


def laid_out(source: Path, place: Path, layout: str) -> Path:
    """The directory that holds the files of `source`; `place` is a directory to be made.

    In the cache every file is a link into the repository's blobs, which are named by their hash.
    """
    if layout == "copies":
        return Path(shutil.copytree(source, place))
    if layout == "hard links":
        shutil.copytree(source, place / "one")  # `source` itself keeps its one name
        return Path(shutil.copytree(place / "one", place / "other", copy_function=os.link))
    repository = place / "models--owner--faces"
    snapshot, blobs = repository / "snapshots" / "0123abcd", repository / "blobs"
    blobs.mkdir(parents=True)
    for file in source.rglob("*"):
        if file.is_file():
            link = snapshot / file.relative_to(source)
            blob = blobs / hashlib.sha256(file.read_bytes()).hexdigest()
            shutil.copyfile(file, blob)
            link.parent.mkdir(parents=True, exist_ok=True)
            link.symlink_to(os.path.relpath(blob, link.parent))
    return snapshot
