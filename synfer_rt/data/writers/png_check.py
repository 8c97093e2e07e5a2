"""Whether a PNG file is whole: by its ends alone, or all of it."""

from __future__ import annotations

import io
import os
from pathlib import Path

_BEGIN = b"\x89PNG\r\n\x1a\n"
_END = b"\x00\x00\x00\x00IEND\xaeB`\x82"
"""The last chunk: no data, its name and its checksum (PNG specification, 5.6 and 11.2.5)."""


def has_both_ends(path: Path) -> bool:
    """Whether a file begins and ends as a PNG does: one that is cut short does not."""
    try:
        with path.open("rb") as file:
            begin = file.read(len(_BEGIN))
            file.seek(-len(_END), os.SEEK_END)
            return begin == _BEGIN and file.read() == _END
    except OSError:  # not there, or shorter than its end
        return False


def problem(png: bytes) -> str | None:
    """What is wrong with a PNG file's bytes, None where all checksums hold and it decodes."""
    from PIL import Image

    if not png.endswith(_END):  # which Pillow does not ask for
        return "it is cut short or not a PNG"
    try:
        with Image.open(io.BytesIO(png), formats=["PNG"]) as image:
            image.verify()
        with Image.open(io.BytesIO(png), formats=["PNG"]) as image:
            image.load()
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        reason = str(error).rstrip(".")
        return (
            "it is cut short or not a PNG" if "BytesIO" in reason else f"it is damaged ({reason})"
        )
    return None
