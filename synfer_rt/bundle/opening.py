"""Open a bundle: its manifest is read, and every file is compared with its hash."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from synfer_rt.bundle.bundle import Bundle
from synfer_rt.bundle.files import MANIFEST, check_files, remedy
from synfer_rt.bundle.manifest import named_files, naming_faults, read_manifest
from synfer_rt.errors import UserError
from synfer_rt.paths import local


def open_bundle(path: str | Path | None = None) -> Bundle:
    """The bundle in directory `path`, checked; None means the one that is installed.

    Every file must exist inside the directory with its size and SHA-256, and the engines must fit
    each other. Raises UserError, which names the file and the remedy, for the first fault.
    """
    bundle = open_without_cuda_files(path)
    command = f"synfer-rt build-engines {bundle.path} --target cuda"
    with naming_faults(bundle.path):
        again = f"make its CUDA engines again with `{command}`"
        check_files(bundle.path, _cuda_files(bundle, True), again)
    return bundle


def open_without_cuda_files(path: str | Path | None = None) -> Bundle:
    """As `open_bundle`, but the files of CUDA engines may be missing or damaged.

    They are made from the other files, so they can be made again.
    """
    if path is None:
        from synfer_rt.engines import default_bundle

        path = default_bundle()
    path = local(
        path, "bundle"
    ).absolute()  # engines are loaded later, and the program may go elsewhere
    try:
        str(path).encode()
    except UnicodeEncodeError:
        raise UserError(
            f"The name of the bundle's directory, {str(path)!r}, is not UTF-8, and runtimes cannot "
            "load engines from it; rename it."
        ) from None
    try:
        text = (path / MANIFEST).read_bytes()
    except OSError as error:
        otherwise = remedy(path, "give a directory that `synfer-rt build-engines` wrote")
        raise UserError(
            f"{path} is not a bundle ({MANIFEST}: {error.strerror}); {otherwise}."
        ) from None
    bundle = read_manifest(path, text)
    with naming_faults(path):
        _check_files(bundle)
    return bundle


def _check_files(bundle: Bundle) -> None:
    """Raise UserError for the first file without a hash, or that its hash does not match."""
    files = bundle.manifest["files"]
    for name in sorted(named_files(bundle.manifest)):
        if name not in files:
            raise UserError(
                f"{bundle.path / MANIFEST} has no hash of {name}; {remedy(bundle.path)}."
            )
    check_files(bundle.path, _cuda_files(bundle, False))


def _cuda_files(bundle: Bundle, wanted: bool) -> dict[str, Any]:
    """The manifest's entries of the files that are CUDA engines, or of all others."""
    names = {spec.file for spec in bundle.cuda.values()}
    files = bundle.manifest["files"]
    return {name: entry for name, entry in files.items() if (name in names) == wanted}
