"""Whether an image file is whole: by its ends alone, or all of it.

PNG has a checksum in each chunk. JPEG and WebP have none, so changed bytes within them show only
where they no longer decode. A file that is cut short always shows: a JPEG ends with a marker that
is nowhere else in it (ITU-T T.81, B.1.1: in coded data a zero follows each byte FF), and a WebP
begins with its length (RFC 9649, 2.4).
"""

from __future__ import annotations

import io
import os
from pathlib import Path
from typing import IO

from synfer_rt.data.image_format import ImageFormat

_PNG, _JPEG, _RIFF, _WEBP = b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"RIFF", b"WEBP"
_LAST_CHUNK = b"\x00\x00\x00\x00IEND\xaeB`\x82"
"""The last chunk of PNG: no data, its name and its checksum (PNG specification, 5.6, 11.2.5)."""
_END_OF_IMAGE = b"\xff\xd9"
_ENDS = {"png": (_PNG, _LAST_CHUNK), "jpeg": (_JPEG, _END_OF_IMAGE), "webp": (_RIFF, b"")}
"""What files of a format begin and end with."""
_NAMES = {"png": "PNG", "jpeg": "JPEG", "webp": "WebP"}


def has_both_ends(path: Path, format: ImageFormat) -> bool:
    """Whether a file begins and ends as one of its format does: one that is cut short does not."""
    try:
        with path.open("rb") as file:
            return _ends_well(file, format)
    except OSError:  # not there, or shorter than its end
        return False


def _ends_well(file: IO[bytes], format: ImageFormat) -> bool:
    begin, end = _ENDS[format.name]
    head = file.read(12)
    size = file.seek(0, os.SEEK_END)
    file.seek(-len(end), os.SEEK_END)
    whole = head.startswith(begin) and file.read() == end
    if format.name != "webp":
        return whole
    return whole and head[8:] == _WEBP and int.from_bytes(head[4:8], "little") == size - 8


def problem(content: bytes, format: ImageFormat) -> str | None:
    """What is wrong with an image file's bytes.

    None where it is whole, its checksums hold, if it has any, and it decodes.
    """
    from PIL import Image

    cut = f"it is cut short or not a {_NAMES[format.name]}"
    try:
        if not _ends_well(io.BytesIO(content), format):  # which Pillow does not ask for
            return cut
        kinds = [format.name.upper()]
        with Image.open(io.BytesIO(content), formats=kinds) as image:
            image.verify()
        with Image.open(io.BytesIO(content), formats=kinds) as image:
            image.load()
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        reason = str(error).rstrip(".")
        return cut if "BytesIO" in reason else f"it is damaged ({reason})"
    return None
