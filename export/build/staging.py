"""The place where a bundle is built: beside `out`, under a lock, so that a build can resume.

<out>                   the bundle, old or new, always whole
<out>.log               the build log; its lock keeps a second build away
.<out>.building/bundle  the files of the bundle that is being built, each engine with its weights
.<out>.building/*.done  what is finished of it
.<out>.building/whole   the new bundle, its engines sharing weights, before it takes its place
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from synfer_rt.bundle import MANIFEST
from synfer_rt.errors import UserError
from synfer_rt.export.build.entries import Entry
from synfer_rt.export.build.hashes import sha256
from synfer_rt.export.onnx.shared_weights import copy_with_weights, data_files
from synfer_rt.export.sentences import some


@dataclass(frozen=True)
class Staging:
    """A bundle under construction; `old` is the manifest of the one it updates, or None."""

    out: Path
    work: Path
    old: dict[str, Any] | None

    @property
    def bundle(self) -> Path:
        """Where engines and files are made."""
        return self.work / "bundle"

    @property
    def whole(self) -> Path:
        """The directory that takes the name `out`."""
        return self.work / "whole"

    def record(self, name: str, entry: Entry) -> None:
        """Note that `name` is finished, so that the next build can reuse it."""
        file = self.work / f"{name}.done"
        half = file.with_suffix(".half")
        half.write_text(json.dumps(entry))
        half.replace(file)

    def entry(self, name: str) -> Entry:
        """The entry that was recorded for `name`."""
        return json.loads((self.work / f"{name}.done").read_bytes())

    def recorded(self, name: str, key: str) -> Entry | None:
        """The entry of `name` from an interrupted build, if it has this key."""
        try:
            entry = self.entry(name)
        except (OSError, ValueError):
            return None
        return entry if self._has(entry, key, self.bundle) else None

    def inherited(self, entry: Entry | None, key: str, weights: bool = False) -> Entry | None:
        """`entry` of the old bundle if it has this key; its files are then here too.

        With `weights`, it is an engine, and its weights are copied if they are in other files.
        """
        if self.old is None or not self._has(entry, key, self.out):
            return None
        assert entry is not None
        file = entry["file"]
        if not self._intact(file):
            return None
        names = {file} | (data_files(self.out / file) if weights else set())
        if not all(map(self._intact, names)):
            return None
        (self.bundle / file).parent.mkdir(parents=True, exist_ok=True)
        (self.bundle / f"{file}.data").unlink(missing_ok=True)  # left by an interrupted build
        if names <= {file, f"{file}.data"}:
            for name in names:
                # Weights are copied: onnx does not read them from a file that has several names.
                place = shutil.copyfile if name != file else _link
                place(self.out / name, self.bundle / name)
        else:  # it uses the weights of another engine, which may be built again
            copy_with_weights(self.out / file, self.bundle / file)
        return entry

    def discard(self, name: str, file: str) -> None:
        """Forget `name` and remove its files."""
        (self.work / f"{name}.done").unlink(missing_ok=True)
        for old in (file, f"{file}.data"):
            (self.bundle / old).unlink(missing_ok=True)

    def assemble(self, files: set[str]) -> Path:
        """Make the new bundle's directory again, with those of `files` that exist."""
        shutil.rmtree(self.whole, ignore_errors=True)
        self.whole.mkdir()
        for name in files:
            if (self.bundle / name).is_file():
                self.take(self.bundle / name, name)
        return self.whole

    def take(self, file: Path, name: str, *, copied: bool = False) -> None:
        """Put `file` into the new bundle's directory as `name`: a hard link, or a copy."""
        (self.whole / name).parent.mkdir(parents=True, exist_ok=True)
        (shutil.copyfile if copied else _link)(file.resolve(), self.whole / name)

    def keep(self, name: str) -> None:
        """Keep a file that was made in the new bundle's directory for the next build."""
        _link(self.whole / name, self.bundle / name)

    def _intact(self, name: str) -> bool:
        """Whether a file of the old bundle has the hash in its manifest."""
        listed = ((self.old or {}).get("files") or {}).get(name) or {}
        file = self.out / name
        return file.is_file() and sha256(file) == listed.get("sha256")

    def _has(self, entry: Entry | None, key: str, folder: Path) -> bool:
        return (
            isinstance(entry, dict)
            and entry.get("build_key") == key
            and (folder / str(entry.get("file"))).is_file()
        )


def log_file(out: Path) -> Path:
    """The build log of the bundle `out`."""
    return out.parent / f"{out.name}.log"


@contextmanager
def staging(out: Path, model: str, force: bool, weights: Collection[str] = ()) -> Iterator[Staging]:
    """Make or update the bundle `out` of the model called `model`: all of it, or nothing.

    `weights` are the SHA-256 of the model's weight files. If the block ends without an error, the
    new directory takes the name `out`; otherwise finished engines are kept for the next build.
    `force` reuses nothing and replaces the bundle of another model. Raises UserError for an `out`
    that is not a bundle or holds other files too, is the bundle of another model, cannot be
    written, or is being written by another build.
    """
    work = out.parent / f".{out.name}.building"
    try:
        check_target(out, model, force, weights)
        out.parent.mkdir(parents=True, exist_ok=True)
        with _locked(log_file(out), out):
            _restore(out)
            old = check_target(out, model, force, weights)
            if force:
                shutil.rmtree(work, ignore_errors=True)
            place = Staging(out, work, None if force else old)
            shutil.rmtree(place.whole, ignore_errors=True)
            place.bundle.mkdir(parents=True, exist_ok=True)
            try:
                yield place
                _swap(place.whole, out)
                shutil.rmtree(work, ignore_errors=True)
            finally:
                if not any(work.rglob("*.done")):
                    shutil.rmtree(work, ignore_errors=True)
    except OSError as error:
        raise UserError(
            f"{out} cannot be written ({error.strerror or error}); give `out` a directory on a "
            "disk with room and permission."
        ) from error


def check_target(
    out: Path, model: str, force: bool, weights: Collection[str] = ()
) -> dict[str, Any] | None:
    """The manifest of the bundle at `out`, or None if nothing is there; UserError otherwise.

    Replacing a bundle removes its directory, so only the bundle's own files may be in it.
    """
    if os.path.ismount(out):
        raise UserError(
            f"{out} is a mount point, which a bundle cannot replace; give `out` a directory inside "
            "it."
        )
    if not out.exists() or (out.is_dir() and not any(out.iterdir())):
        return None
    manifest = _manifest(out)
    if manifest is None:
        raise UserError(f"{out} exists and is not a bundle; give another `out`, or remove it.")
    known = {MANIFEST, *manifest["files"]}
    present = [file for file in out.rglob("*") if not file.is_dir()]
    if more := sorted({file.relative_to(out).as_posix() for file in present} - known):
        raise UserError(
            f"{out} holds files that are not part of its bundle, such as {some(more, 2)}; move "
            "them elsewhere, or give another `out`."
        )
    made_of = set((manifest.get("source") or {}).get("sha256", {}).values())
    what = None
    if manifest["name"] != model:
        what = f"the bundle of {manifest['name']}, not of {model}"
    elif weights and made_of and made_of.isdisjoint(weights):
        what = f"the bundle of another model called {model}, with no weights in common"
    if what and not force:
        raise UserError(f"{out} holds {what}; give another `out`, or replace it with `force=True`.")
    return manifest


def _manifest(out: Path) -> dict[str, Any] | None:
    """The manifest in the directory `out`; None if it is missing or is something else."""
    try:
        manifest = json.loads((out / MANIFEST).read_bytes())
    except (OSError, ValueError, RecursionError):
        return None
    fits = isinstance(manifest, dict) and all(
        isinstance(manifest.get(key), kind)
        for key, kind in (("name", str), ("files", dict), ("engines", dict))
    )
    return manifest if fits else None


@contextmanager
def _locked(log: Path, out: Path) -> Iterator[None]:
    """Hold the lock of a build; the system frees it when the process ends, however it ends."""
    with log.open("a") as file:
        if os.name == "posix":
            import fcntl

            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise UserError(
                    f"Another build is writing {out} (its log is {log}); wait for it, or give "
                    "another `out`."
                ) from None
        yield


def _replaced(out: Path) -> Path:
    return out.parent / f".{out.name}.replaced"


def _restore(out: Path) -> None:
    """Put the old bundle back if a build was killed between the two renames of _swap."""
    old = _replaced(out)
    if old.exists() and not out.exists():
        old.rename(out)
    shutil.rmtree(old, ignore_errors=True)


def _swap(new: Path, out: Path) -> None:
    """Give `new` the name `out`; the old directory is removed only when that has succeeded."""
    old = _replaced(out)
    if out.exists():
        out.rename(old)
    try:
        new.rename(out)
    except BaseException:
        if old.exists():
            old.rename(out)
        raise
    shutil.rmtree(old, ignore_errors=True)


def _link(source: Path, target: Path) -> None:
    target.unlink(missing_ok=True)
    try:
        target.hardlink_to(source)
    except OSError:  # a disk without hard links
        shutil.copyfile(source, target)
