"""Where a dataset card lies, and whose it is: a card that a user wrote or changed stays.

`datasets` and the Hub read a card's header from README.md in the dataset's folder. But Arrow and
pandas take every file of a folder for a Parquet file, except hidden ones. So a Parquet run has the
header alone in its folder, in the hidden file that `datasets` reads as well, and the card in the
run's own folder.
"""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

from synfer_rt.data.writers import run_file
from synfer_rt.data.writers.atomic import disk_errors, write_beside_others

CARD, HEADER = "README.md", ".huggingface.yaml"
AMONG_SAMPLES = ("imagefolder", "webdataset")
"""Formats whose readers pass over README.md, or can be told to."""
_SEAL = "Written by synfer-rt and renewed with the run, unless changed: "
_SEALED = re.compile(rb"(?s)(.*\n)[^\n]*" + _SEAL.encode() + rb"([0-9a-f]{64})[^\n]*\n")
"""A whole file: what was written, then a line with its SHA-256."""
_LONGEST = 1 << 22
"""No card is so long; a longer file is not read to the end."""


def place(out: Path, format: str) -> Path:
    """Where the card of the run in `out` lies; see `write_card`."""
    among, aside = out / CARD, run_file.folder(out) / CARD
    return among if format in AMONG_SAMPLES and _may_be_written(among) else aside


def write_card(out: Path, format: str, header: str, text: str) -> Path:
    """Write the card of the finished run in `out`, of YAML `header` and Markdown `text`.

    A README.md that a user wrote or changed stays; the card then lies in the run's own folder.
    Returns the card's path. Raises UserError if the disk is full or not writable.
    """
    file = place(out, format)
    with disk_errors(file):
        file.parent.mkdir(exist_ok=True)
        _write(file, f"---\n{header}---\n\n{text}\n", "<!-- {} -->", out)
        if format not in AMONG_SAMPLES and _may_be_written(out / HEADER):
            _write(out / HEADER, header, "# {}", out)
    return file


def is_card(file: Path) -> bool:
    """Whether a file is a card that synfer-rt wrote, even if it has been changed since."""
    return file.name == CARD and _SEAL.encode() in _content(file)


def _write(file: Path, text: str, comment: str, out: Path) -> None:
    """Write `text` and, as a comment, its hash."""
    content = text.encode()
    seal = comment.format(_SEAL + hashlib.sha256(content).hexdigest())
    write_beside_others(file, content + seal.encode() + b"\n", run_file.folder(out))


def _may_be_written(file: Path) -> bool:
    """Whether a file is not there, or is as synfer-rt wrote it."""
    if not file.exists():
        return not file.is_symlink()
    sealed = _SEALED.fullmatch(_content(file))
    return bool(sealed) and hashlib.sha256(sealed[1]).hexdigest().encode() == sealed[2]


def _content(file: Path) -> bytes:
    """The beginning of a file; nothing if it cannot be read."""
    try:
        with file.open("rb") as opened:
            return opened.read(_LONGEST)
    except OSError:
        return b""
