"""Images from elsewhere: found in folders, read safely, cropped to the model's frame."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np

from synfer_rt.errors import UserError

MAX_PIXELS = 1 << 26
"""Larger images are refused before they are decoded: a small file can hold a huge one."""
FORMATS = ("JPEG", "PNG", "WEBP", "TIFF", "BMP", "GIF", "PPM", "JPEG2000")
"""What files are opened as, by pillow's names: for other formats it may run another program."""


def find_images(path: str | Path) -> list[Path]:
    """Every file at or below `path` that may hold an image, sorted.

    All but hidden files count, whatever their suffix: whether a file is an image is for
    `read_image` to say, so that none is passed over in silence. Raises UserError when `path` is not
    there, cannot be listed, or holds no file.
    """
    path = Path(path)
    if path.is_file():
        return [path]
    if not path.is_dir():
        raise UserError(f"There is no file or directory {path}; give one with images.")
    try:
        files = [file for file in path.rglob("*") if file.is_file()]
    except OSError as error:
        raise UserError(
            f"{path} cannot be listed ({error.strerror}); mend its permissions."
        ) from None
    found = sorted(f for f in files if not _hidden(f.relative_to(path)))
    if not found:
        raise UserError(f"{path} holds no files; give a directory with images.")
    return found


def in_utf8(name: str) -> str:
    r"""A name that any file can hold: what of a path is not UTF-8 becomes `\udce9` and the like."""
    return name.encode("utf-8", "backslashreplace").decode()


def read_image(source: str | Path | bytes, size: tuple[int, int]) -> np.ndarray:
    """An image of one of FORMATS, as float32 [3, H, W] in [0, 1], RGB.

    `source` is a file or a file's content, `size` the (H, W) wanted. The picture is turned upright
    by its EXIF orientation, laid over white where it is transparent, cropped at its centre to the
    shape of `size` and resized. Of several frames the first counts. Raises UserError, naming the
    file, for one that is missing, no image, cut short or of more than MAX_PIXELS.
    """
    from PIL import Image, ImageOps, UnidentifiedImageError

    name = "The image" if isinstance(source, bytes) else str(source)
    file = io.BytesIO(source) if isinstance(source, bytes) else source
    height, width = size
    try:
        with Image.open(file, formats=FORMATS) as image:
            if image.width * image.height > MAX_PIXELS:
                raise Image.DecompressionBombError(f"{image.width} x {image.height} pixels")
            fitted = ImageOps.fit(upright_rgb(image), (width, height), Image.Resampling.BICUBIC)
    except Image.DecompressionBombError as error:
        reason = str(error).partition(", could be")[0].rstrip(".")
        raise UserError(
            f"{name} is too large ({reason}); make it at most {MAX_PIXELS} pixels, or leave it out."
        ) from None
    except UnidentifiedImageError:
        raise UserError(
            f"{name} is no image that can be read (its format is unknown); leave it out, or save "
            "it as PNG or JPEG."
        ) from None
    except Exception as error:  # every decoder of pillow raises errors of its own kind
        reason = str(getattr(error, "strerror", None) or error).partition("\n")[0].rstrip(".")
        raise UserError(
            f"{name} is no image that can be read ({reason or type(error).__name__}); leave it "
            "out, or save it as PNG or JPEG."
        ) from None
    return np.asarray(fitted, np.float32).transpose(2, 0, 1) / np.float32(255)


def upright_rgb(image: Any) -> Any:
    """A pillow image turned upright by its EXIF orientation, as 8-bit RGB.

    Transparent parts become white, 16-bit greys keep their range.
    """
    from PIL import Image, ImageOps

    image = ImageOps.exif_transpose(image)
    if image.mode.startswith("I;16"):
        image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return image.convert("RGB")


def png(image: np.ndarray) -> bytes:
    """uint8 [H, W, 3] as a PNG file."""
    from PIL import Image

    file = io.BytesIO()
    Image.fromarray(image).save(file, "PNG")
    return file.getvalue()


def _hidden(relative: Path) -> bool:
    return any(part.startswith(".") for part in relative.parts)
