"""The files of a bundle: where they may lie, and whether they match the manifest."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from synfer_rt.errors import UserError

MANIFEST = "bundle.json"


REBUILD = "build the bundle again with `synfer-rt build-engines`"


def check_files(
    directory: Path, files: Mapping[str, Mapping[str, Any]], otherwise: str = REBUILD
) -> None:
    """Raise UserError for the first file that is missing, outside, truncated or altered.

    `files` are of the manifest: `bytes` and `sha256` by path within the bundle's `directory`. The
    errors name the remedy `otherwise`, unless the bundle is the shipped one.
    """
    paths = [inside(directory, name, otherwise) for name in files]
    with ThreadPoolExecutor() as pool:
        for file, expected, found in zip(
            paths, files.values(), pool.map(file_entry, paths), strict=True
        ):
            if found["bytes"] != expected["bytes"]:
                problem = f"has {found['bytes']} bytes instead of {expected['bytes']}"
            elif found["sha256"] != expected["sha256"]:
                problem = "was altered (its SHA-256 differs from the manifest's)"
            else:
                continue
            raise UserError(f"{file} {problem}; {remedy(directory, otherwise)}.")


def inside(directory: Path, name: str, otherwise: str = REBUILD) -> Path:
    """The file `name` of a bundle; UserError when it is missing or lies outside the directory."""
    file, relative = directory / name, Path(name)
    within = not relative.is_absolute() and ".." not in relative.parts
    if not within or not any(map(file.resolve().is_relative_to, file_roots(directory))):
        raise UserError(f"{MANIFEST} names {name!r}, outside {directory}; do not use this bundle.")
    if not file.is_file():
        raise UserError(f"{file} is missing; {remedy(directory, otherwise)}.")
    return file


def file_roots(directory: Path) -> tuple[Path, ...]:
    """The folders that may hold files of `directory`: it, and the blobs of a Hugging Face cache.

    There `models--<name>/snapshots/<revision>/` holds only links to `models--<name>/blobs/`
    (huggingface_hub, "Understand caching").
    """
    real = directory.resolve()
    for folder in (real, *real.parents):
        repository = folder.parent.parent
        if folder.parent.name == "snapshots" and (repository / "blobs").is_dir():
            return real, repository / "blobs"
    return (real,)


def file_entry(file: Path) -> dict[str, Any]:
    """Size and SHA-256 of a file: `bytes` and `sha256`; UserError when it cannot be read."""
    digest = hashlib.sha256()
    try:
        with file.open("rb") as stream:
            while block := stream.read(1 << 20):
                digest.update(block)
            return {"sha256": digest.hexdigest(), "bytes": stream.tell()}
    except OSError as error:
        raise UserError(
            f"{file} cannot be read ({error.strerror}); check its path and its permissions."
        ) from None


def remedy(path: Path, otherwise: str = REBUILD) -> str:
    """The remedy for a damaged bundle: `otherwise`, unless it is the shipped one."""
    try:
        from synfer_rt.engines import default_bundle

        if path.resolve() == default_bundle().resolve():
            return "reinstall the package synfer-rt"
    except (ImportError, UserError):
        pass
    return otherwise
