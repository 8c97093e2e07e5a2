"""The format of a dataset's images: PNG keeps every pixel, JPEG and WebP are several times smaller.

Lossy files are those of Pillow with the settings below, none of which is left to its defaults. They
are the same on every machine with the same releases of Pillow and of the library that encodes,
which `ImageFormat.encoder` names. At 4:2:0 the colour of a JPEG or WebP file has half the width and
height of its brightness; WebP knows nothing finer.
"""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any, cast

import numpy as np

from synfer_rt import ranges
from synfer_rt.data import png
from synfer_rt.errors import UserError, nearest

SUFFIXES = {"png": "png", "jpeg": "jpg", "webp": "webp"}
"""How the names of files end, by the format's name."""
QUALITY = 95
"""The quality of lossy files unless another is given."""
ENCODER = "image_encoder"
"""The key of run.json of what encoded lossy files when the run was begun."""
_FORMAT, _QUALITY = "image_format", "image_quality"
_LIBRARIES = {"jpeg": ("libjpeg_turbo", "libjpeg-turbo"), "webp": ("webp", "libwebp")}
"""The libraries that encode, as Pillow calls them and as their authors do."""
_LONGEST = {"jpeg": 65_500, "webp": 16_383}
"""The longest side in pixels (JPEG_MAX_DIMENSION of libjpeg, WEBP_MAX_DIMENSION of libwebp)."""
_SETTINGS: Mapping[str, Mapping[str, Any]] = {
    "jpeg": {"subsampling": "4:2:0", "optimize": True, "progressive": False},
    "webp": {"lossless": False, "method": 4, "alpha_quality": 100, "exact": False},
}


@dataclass(frozen=True)
class ImageFormat:
    """Images as files of the format `name`, a key of SUFFIXES.

    `quality` is that of lossy files, from 1 to 100 as libjpeg and libwebp count; PNG has none.
    """

    name: str = "png"
    quality: int | None = None

    @property
    def suffix(self) -> str:
        """How the files' names end, without the dot."""
        return SUFFIXES[self.name]

    @property
    def settings(self) -> dict[str, Any]:
        """What run.json says of it; nothing of PNG, as in runs of releases that knew no other."""
        return {} if self.quality is None else {_FORMAT: self.name, _QUALITY: self.quality}

    @property
    def encoder(self) -> str | None:
        """Pillow and the library that encodes lossy files, with their versions; None for PNG.

        Raises UserError where Pillow was built without that library.
        """
        if self.quality is None:
            return None
        from PIL import features

        known, name = _LIBRARIES[self.name]
        supported = features.check({"jpeg": "jpg"}.get(self.name, self.name))
        if not supported:
            raise UserError(
                f"This build of Pillow cannot write {self.name}; install one from PyPI "
                '(`pip install --force-reinstall pillow`), or choose `image_format="png"`.'
            )
        # A build on another libjpeg has no version of libjpeg-turbo.
        library = features.version(known) or f"({features.version('jpg')})"
        return f"Pillow {version('pillow')}, {name} {library}"

    def encode(self, pictures: Sequence[np.ndarray] | np.ndarray) -> list[bytes]:
        """Pictures of one size, each uint8 [H, W, 3], or all in one array, as files.

        Raises ValueError for other types and shapes, and UserError for pictures that are larger
        than the format allows.
        """
        if self.quality is None:
            return png.encode(pictures)
        return [self._file(picture) for picture in pictures]

    def _file(self, picture: np.ndarray) -> bytes:
        from PIL import Image

        if picture.dtype != np.uint8 or picture.ndim != 3 or picture.shape[2] != 3:
            raise ValueError(
                f"pictures must be uint8 [H, W, 3], got {picture.dtype} {list(picture.shape)}"
            )
        height, width, longest = *picture.shape[:2], _LONGEST[self.name]
        if max(height, width) > longest:
            raise UserError(
                f"An image of {width} x {height} pixels cannot be written as {self.name}, whose "
                f'sides have at most {longest}; choose `image_format="png"`.'
            )
        file, how = io.BytesIO(), _SETTINGS[self.name]
        Image.fromarray(picture).save(file, self.name.upper(), quality=self.quality, **how)
        return file.getvalue()


PNG = ImageFormat()


def image_format(name: object = "png", quality: object = None) -> ImageFormat:
    """The format `name` in `quality`, which is QUALITY for lossy files unless it is given.

    Raises UserError for an unknown name, a quality outside 1 to 100, and one of PNG.
    """
    if not isinstance(name, str) or name not in SUFFIXES:
        known = ", ".join(SUFFIXES)
        raise UserError(
            f"`{_FORMAT}` must be one of {known}, got {name!r}; the nearest is "
            f"{nearest(str(name), SUFFIXES)}."
        )
    if name == PNG.name:
        if quality is not None:
            raise UserError(
                f"`{_QUALITY}` is of jpeg and webp, PNG keeps every pixel; leave it out, or choose "
                f'`{_FORMAT}="jpeg"`.'
            )
        return PNG
    quality = QUALITY if quality is None else quality
    return ImageFormat(name, ranges.whole(_QUALITY, quality, 1, 100))


def of_settings(settings: Mapping[str, Any]) -> ImageFormat:
    """The format of a run's images, from its settings. Raises UserError for settings of none."""
    return image_format(settings.get(_FORMAT, PNG.name), cast(object, settings.get(_QUALITY)))
