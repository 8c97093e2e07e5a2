"""The photos that are uploaded to start from, kept as the model sees them until the studio ends."""

from __future__ import annotations

import hashlib
import re
from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from synfer_rt.bundle import Bundle
from synfer_rt.data import png
from synfer_rt.data.images import centred, read_image
from synfer_rt.errors import UserError
from synfer_rt.faces.alignment import Aligner
from synfer_rt.jobs.aligning import aligner_for
from synfer_rt.sampling.inversion import check_encoder

MOST_BYTES = 32_000_000
"""Of an uploaded file."""
_KEPT = 16
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")


@dataclass(frozen=True)
class Photo:
    """An upload: its `key`, the `name` that its file had, and `file`, a PNG of the bundle's size.

    `pixels` are those of the PNG, uint8 [H, W, 3]: the photo cropped at its centre and resized, or
    its face aligned by `aligner`.
    """

    key: str
    name: str
    file: Path
    pixels: np.ndarray
    aligner: Aligner | None


class Photos:
    """The last uploads, in a temporary folder; a context manager, at whose end they are removed.

    The file that was uploaded is not kept. What is kept is read like any photo of `layout_from`,
    and has the pixels to which that would bring the upload.
    """

    def __init__(self, bundle: Bundle) -> None:
        self._bundle = bundle
        self._folder = TemporaryDirectory(prefix="synfer-rt-studio-")
        self._kept: OrderedDict[str, Photo] = OrderedDict()

    def __enter__(self) -> Photos:
        return self

    def __exit__(self, *_: object) -> None:
        self._folder.cleanup()

    def add(self, content: bytes, name: str, align: bool = False) -> Photo:
        """Keep an uploaded file, whose face is found and aligned if `align` says so.

        Raises UserError for a bundle without an encoder, and for a file that is no image, cut
        short, too large or, to be aligned, without a face (`images.read_image`).
        """
        check_encoder(self._bundle)
        if len(content) > MOST_BYTES:
            raise UserError(too_large(len(content)))
        aligner = aligner_for(self._bundle, align, None, None)
        image = read_image(content, self._bundle.image_size, aligner or centred)
        pixels = np.rint(image.transpose(1, 2, 0) * 255).astype(np.uint8)
        key = hashlib.sha256(content + bytes([align])).hexdigest()[:16]
        (encoded,) = png.encode([pixels])
        file = Path(self._folder.name, f"{key}.png")
        file.write_bytes(encoded)
        photo = Photo(key, plain_name(name), file, pixels, aligner)
        self._kept[key] = photo
        self._kept.move_to_end(key)
        while len(self._kept) > _KEPT:
            _, oldest = self._kept.popitem(last=False)
            oldest.file.unlink(missing_ok=True)
        return photo

    def __call__(self, key: object) -> Photo:
        """The upload of this key. Raises UserError for one that is no longer kept."""
        if not isinstance(key, str) or key not in self._kept:
            raise UserError("The photo is no longer there; choose its file again.")
        self._kept.move_to_end(key)
        return self._kept[key]


def too_large(size: int) -> str:
    """The sentence about a file of so many bytes."""
    most = MOST_BYTES // 1_000_000
    return f"The file has {size / 1e6:.1f} MB; choose a photo of at most {most} MB."


def plain_name(name: str) -> str:
    """A file's name without folders and control characters, which no option looks like."""
    last = _CONTROL.sub("", re.split(r"[/\\]", name)[-1]).strip()
    last = last if last.strip(".") else "photo"
    return f"./{last}" if last.startswith("-") else last
