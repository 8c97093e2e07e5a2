"""An image file as the page needs it: a thumbnail, a small feature, and the file for a browser."""

from __future__ import annotations

import io
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from synfer_rt.data.images import FORMATS, MAX_PIXELS, upright_rgb
from synfer_rt.report.duplicates import SIDE

THUMBNAIL = 64
"""Pixels of the longer side of a thumbnail, at most."""
QUALITY = 70
"""WebP's quality of thumbnails: 0.6 KB for an image of synfer-mini."""
SHOWN = ("PNG", "JPEG", "WEBP", "GIF")
"""The formats, by Pillow's names, that every browser shows; others become PNG."""


@dataclass(frozen=True)
class Picture:
    """What is kept of an image: `thumbnail` is a WebP file, `feature` uint8 [256] its grey pixels.

    `size` is (width, height) of the upright image, and `content` a file that browsers show.
    """

    thumbnail: bytes
    feature: np.ndarray = field(repr=False)
    size: tuple[int, int]
    content: bytes = field(repr=False)


def picture(content: bytes) -> Picture | None:
    """The picture of an image file's bytes; None if it cannot be decoded, or is too large."""
    from PIL import Image

    try:
        with Image.open(io.BytesIO(content), formats=FORMATS) as opened:
            if opened.width * opened.height > MAX_PIXELS:
                return None
            kind = opened.format or ""
            image = upright_rgb(opened)
    except Exception:  # each decoder of Pillow raises errors of its own kind
        return None
    if kind not in SHOWN:
        content = _file(image, "PNG")
    small = image.copy()
    small.thumbnail((THUMBNAIL, THUMBNAIL), Image.Resampling.BICUBIC, reducing_gap=2.0)
    grey = image.convert("L").resize((SIDE, SIDE), Image.Resampling.BOX, reducing_gap=2.0)
    return Picture(
        _file(small, "WEBP", quality=QUALITY, method=4),
        np.asarray(grey, np.uint8).reshape(-1),
        (image.width, image.height),
        content,
    )


def _file(image: Any, format: str, **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, format, **options)
    return file.getvalue()
