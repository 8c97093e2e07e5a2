"""The faces that a run has found, kept so that whoever continues it need not find them again.

The file is a SHA-256, then for each face the hash of its picture and its points, as an aligner
knows them. The SHA-256 is that of the detector, the rule and the faces.
"""

from __future__ import annotations

import hashlib
import logging
import threading
from collections.abc import Generator
from contextlib import contextmanager, suppress
from pathlib import Path

from synfer_rt.data.writers import run_file
from synfer_rt.data.writers.atomic import disk_errors, write_unless_there
from synfer_rt.data.writers.working_copy import address_in
from synfer_rt.errors import UserError
from synfer_rt.faces.alignment import HASH, POINTS, Aligner

LOG = logging.getLogger(__name__)
FILE = run_file.FACES
_SEAL = hashlib.sha256().digest_size
_ROW = HASH + POINTS
_EVERY = 60.0
"""Seconds after which faces are kept while more are sought."""


def remembering(aligner: Aligner | None, out: Path | None) -> Aligner | None:
    """The aligner as one that remembers faces, and knows those that the run in `out` has found.

    A file that is damaged, or of another detector or rule, is passed over. Raises UserError for a
    run that was begun with faces that were aligned otherwise, before any is sought.
    """
    if out is not None and run_file.exists(out):
        align = None if aligner is None else aligner.settings()
        run_file.check_same(out, {**run_file.load(out), "align": align})
    if aligner is None:
        return None
    return aligner.remembering({} if out is None else _read(out, aligner))


@contextmanager
def keeping_faces(aligner: Aligner | None, out: Path | None) -> Generator[None]:
    """Within the block `aligner` finds the faces of a job's images: keep them every minute.

    So an interruption costs a minute of that, also before the run in `out` begins. Each time a line
    says how many there are. What ends within a minute leaves no file. A disk that is full or not
    writable is no error here, since the run will say so.
    """
    if aligner is None or out is None or address_in(out) is not None:
        yield
        return
    ended, kept = threading.Event(), threading.Event()

    def keep() -> None:
        with suppress(UserError):
            keep_faces(out, aligner)
            file, count = run_file.folder(out) / FILE, len(aligner.known or ())
            LOG.info(f"Looking for faces: {count} found, which are kept in {file}.")

    def watch() -> None:
        while not ended.wait(_EVERY):
            kept.set()
            keep()

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        yield
    finally:
        ended.set()
        watcher.join()
        if kept.is_set():
            keep()


def keep_faces(out: Path, aligner: Aligner | None) -> None:
    """Write the faces that `aligner` knows into the folder that belongs to the run in `out`.

    Those that others have written there stay. Raises UserError when the disk is full or not
    writable.
    """
    if aligner is None or not aligner.known:
        return
    faces = {**_read(out, aligner), **aligner.known.copy()}  # a copy, for others may find more
    rows = b"".join(picture + points for picture, points in sorted(faces.items()))
    file = run_file.folder(out) / FILE
    with disk_errors(out):
        file.parent.mkdir(parents=True, exist_ok=True)
        write_unless_there(file, _seal(aligner, rows) + rows, file.parent)


def _read(out: Path, aligner: Aligner) -> dict[bytes, bytes]:
    """The faces that are kept, as `Aligner.known` has them."""
    try:
        content = (run_file.folder(out) / FILE).read_bytes()
    except OSError:
        return {}
    seal, rows = content[:_SEAL], content[_SEAL:]
    if seal != _seal(aligner, rows):
        return {}
    faces = (rows[i : i + _ROW] for i in range(0, len(rows), _ROW))
    return {face[:HASH]: face[HASH:] for face in faces}


def _seal(aligner: Aligner, rows: bytes) -> bytes:
    found_by = f"{aligner.detector.sha256} {aligner.rule}\n"
    return hashlib.sha256(found_by.encode() + rows).digest()
