"""The faces that a run has found, kept so that whoever continues it need not find them again.

The file is a SHA-256, then for each face the hash of its picture and its points, as an aligner
knows them. The SHA-256 is that of the detector, the rule and the faces.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

from synfer_rt.data.writers import run_file
from synfer_rt.data.writers.atomic import disk_errors, write_beside_others
from synfer_rt.faces.alignment import HASH, POINTS, Aligner

FILE = "faces.bin"
_SEAL = hashlib.sha256().digest_size


def remembering(aligner: Aligner | None, out: Path | None) -> Aligner | None:
    """The aligner as one that remembers faces, and knows those that the run in `out` has found.

    A file that is damaged, or of another detector or rule, is passed over.
    """
    if aligner is None:
        return None
    rows = b"" if out is None else _read(out, aligner)
    faces = (rows[i : i + HASH + POINTS] for i in range(0, len(rows), HASH + POINTS))
    return aligner.remembering({face[:HASH]: face[HASH:] for face in faces})


def keep_faces(out: Path, aligner: Aligner | None) -> None:
    """Write the faces that `aligner` knows into the folder that belongs to the run in `out`.

    Raises UserError when the disk is full or not writable.
    """
    if aligner is None or not aligner.known:
        return
    rows = b"".join(picture + points for picture, points in sorted(aligner.known.items()))
    file = run_file.folder(out) / FILE
    with disk_errors(out):
        write_beside_others(file, _seal(aligner, rows) + rows, file.parent)


def _read(out: Path, aligner: Aligner) -> bytes:
    try:
        content = (run_file.folder(out) / FILE).read_bytes()
    except OSError:
        return b""
    seal, rows = content[:_SEAL], content[_SEAL:]
    return rows if seal == _seal(aligner, rows) else b""


def _seal(aligner: Aligner, rows: bytes) -> bytes:
    found_by = f"{aligner.detector.sha256} {aligner.rule}\n"
    return hashlib.sha256(found_by.encode() + rows).digest()
