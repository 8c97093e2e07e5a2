"""Write a bundle's manifest over its finished files."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from synfer_rt.bundle.bundle import Bundle
from synfer_rt.bundle.files import MANIFEST, file_entry, inside
from synfer_rt.bundle.manifest import FORMAT, named_files, read_manifest
from synfer_rt.bundle.opening import open_bundle


def write_manifest(directory: str | Path, fields: Mapping[str, Any]) -> Bundle:
    """Write bundle.json over the finished files in `directory`, and open the bundle.

    `fields` is the whole manifest except `format` and `files`, which are filled in. The file
    appears complete or not at all, and only when the bundle that it describes passes every check.
    Raises UserError otherwise.
    """
    directory = Path(directory)
    present = {file for file in directory.rglob("*") if file.is_file() and file.name != MANIFEST}
    names = named_files(fields) | {file.relative_to(directory).as_posix() for file in present}
    text = json.dumps(
        {"format": FORMAT, **fields, "files": _entries(directory, sorted(names))},
        indent=1,
        ensure_ascii=False,
    )
    read_manifest(directory, text)
    handle, temporary = tempfile.mkstemp(prefix=MANIFEST, dir=directory)
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as out:
            out.write(text)
        os.chmod(temporary, 0o644)  # mkstemp's 0600 would hide a shared bundle from its readers
        os.replace(temporary, directory / MANIFEST)
    except BaseException:
        os.unlink(temporary)
        raise
    return open_bundle(directory)


def _entries(directory: Path, names: list[str]) -> dict[str, dict[str, Any]]:
    """Size and SHA-256 of files by name. Raises UserError for one that is missing or outside."""

    def entry(name: str) -> dict[str, Any]:
        return file_entry(inside(directory, name))

    with ThreadPoolExecutor() as pool:
        return dict(zip(names, pool.map(entry, names), strict=True))
