"""Image files: finding them in folders, decoding them safely, cropping them to a size."""

from __future__ import annotations

import io
import os
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from synfer_rt.errors import UserError
from synfer_rt.paths import is_folder, local, resolved

if TYPE_CHECKING:
    from PIL import Image

MAX_PIXELS = 1 << 26
"""Larger images are refused before they are decoded: a small file can hold a huge image."""
FORMATS = ("JPEG", "PNG", "WEBP", "TIFF", "BMP", "GIF", "PPM", "JPEG2000")
"""The formats that are decoded, by Pillow's names; for others Pillow may run a program."""


def find_images(path: str | Path) -> list[Path]:
    """Every file at or below `path` that may be an image, sorted.

    Files of any suffix count, so that none is left out without a word: `read_image` finds out which
    are images. Hidden files are left out, and so are folders that are hidden or whose names begin
    with two underscores. Links are followed. A link that leads nowhere or to a folder that is found
    already, and a folder that cannot be listed, are in the list themselves, for `read_image` to
    refuse. Raises UserError if `path` does not exist, cannot be listed, or has no files.
    """
    files, closed = find_files(path)
    return sorted(files + closed, key=_in_order) if closed else files


def find_files(path: str | Path) -> tuple[list[Path], list[Path]]:
    """The files of find_images that are no folders, and those that are, both sorted."""
    path = local(path)
    if not is_folder(path):
        if path.is_file():
            return [path], []
        raise UserError(f"There is no file or directory {path}; give one with images.")
    closed: list[Path] = []
    found: list[Path] = []
    for here, names in _folders(path, closed):
        files = (here / name for name in names if not name.startswith("."))
        found += [file for file in files if _may_be_read(file)]
    if not found and not closed:
        raise UserError(f"{path} has no files; give a directory with images.")
    return sorted(found, key=_in_order), sorted(closed, key=_in_order)


def _in_order(file: Path) -> list[str]:
    """A key that sorts files as Path does, in less time."""
    return os.path.normcase(file).split(os.sep)


def folders_of_images(root: Path) -> set[Path]:
    """The folders that find_images looks into, with links resolved. Raises as it does."""
    return {Path(os.path.realpath(here)) for here, _ in _folders(root, [])}


def _folders(root: Path, closed: list[Path]) -> Iterator[tuple[Path, list[str]]]:
    """Every folder once, with the names of its files. Those left out are added to `closed`."""

    def leave_out(error: OSError) -> None:
        if Path(error.filename) == root:
            raise UserError(f"{root} cannot be listed ({error.strerror}); correct its permissions.")
        closed.append(Path(error.filename))

    # Links are followed last, so that a folder is found by its own name rather than by a link. A
    # link to a folder that contains `root` would lead to everything there, and back here.
    seen = {str(parent) for parent in resolved(root).parents}
    pending = [root]
    for start in pending:
        if os.path.realpath(start) in seen:
            closed.append(start)
            continue
        for parent, folders, names in os.walk(start, onerror=leave_out):
            here, real = Path(parent), os.path.realpath(parent)
            # Sorted, so that of several links to a folder the same one is always followed.
            folders[:] = [] if real in seen else sorted(filter(_may_hold_images, folders))
            if real in seen:
                continue
            seen.add(real)
            pending += [here / name for name in folders if (here / name).is_symlink()]
            yield here, names


def _may_hold_images(folder: str) -> bool:
    return not folder.startswith((".", "__"))


def _may_be_read(file: Path) -> bool:
    """Whether a file is a regular one: reading a pipe, for instance, may never end."""
    try:
        return stat.S_ISREG(file.stat().st_mode)
    except OSError:
        return True  # reading it will tell why it cannot be read


def in_utf8(name: str) -> str:
    r"""A name that any text file can hold: what is not UTF-8 becomes `\udce9` and the like."""
    return name if name.isascii() else name.encode("utf-8", "backslashreplace").decode()


Fit = Callable[["Image.Image", tuple[int, int]], "Image.Image"]
"""Makes of an RGB picture one of the size (H, W)."""


def centred(image: Image.Image, size: tuple[int, int]) -> Image.Image:
    """An RGB picture cropped at its centre to the aspect ratio of `size` (H, W), and resized."""
    from PIL import Image, ImageOps

    height, width = size
    return ImageOps.fit(image, (width, height), Image.Resampling.BICUBIC)


def read_image(source: str | Path | bytes, size: tuple[int, int], fit: Fit = centred) -> np.ndarray:
    """An image in one of FORMATS, as float32 [3, H, W] in [0, 1], RGB.

    `source` is a file or the content of a file, and `size` the (H, W) of the result. The image is
    turned upright by its EXIF orientation and composed over white if it is transparent; `fit`
    brings it to its size. Of several frames, the first is read. Raises UserError for a file that is
    missing, is no image, is cut short or has more than MAX_PIXELS, and as `fit` does.
    """
    from PIL import Image, UnidentifiedImageError

    name = "The image" if isinstance(source, bytes) else str(source)
    file = io.BytesIO(source) if isinstance(source, bytes) else source
    try:
        with Image.open(file, formats=FORMATS) as image:
            if image.width * image.height > MAX_PIXELS:
                raise Image.DecompressionBombError(f"{image.width} x {image.height} pixels")
            upright = upright_rgb(image)
    except Image.DecompressionBombError as error:
        reason = str(error).partition(", could be")[0].rstrip(".")
        raise UserError(
            f"{name} is too large ({reason}); make it at most {MAX_PIXELS} pixels, or leave it out."
        ) from None
    except UnidentifiedImageError:
        raise UserError(
            f"{name} cannot be read (its format is unknown); save it as PNG or JPEG, "
            "or leave it out."
        ) from None
    except Exception as error:  # each decoder of Pillow raises errors of its own kind
        reason = str(getattr(error, "strerror", None) or error).partition("\n")[0].rstrip(".")
        raise UserError(
            f"{name} cannot be read ({reason or type(error).__name__}); save it as "
            "PNG or JPEG, or leave it out."
        ) from None
    fitted = fit(upright, size)
    return np.asarray(fitted, np.float32).transpose(2, 0, 1) / np.float32(255)


def size_of(content: bytes) -> tuple[int, int]:
    """(H, W) of an image file, turned upright. Raises what Pillow raises if it is no image."""
    from PIL import Image, ImageOps

    with Image.open(io.BytesIO(content), formats=FORMATS) as image:
        width, height = ImageOps.exif_transpose(image).size
    return height, width


def upright_rgb(image: Any) -> Any:
    """A Pillow image turned upright by its EXIF orientation, as 8-bit RGB.

    Transparent parts become white; 16-bit greys are scaled to 8 bits. Raises ValueError for pixels
    of more than 16 bits or of floating point, whose value for white is not known.
    """
    from PIL import Image, ImageOps

    image = ImageOps.exif_transpose(image)
    if image.mode == "F":
        raise ValueError("its pixels are floating point")
    if image.mode.startswith("I"):
        greys = np.asarray(image)
        if greys.min() < 0 or greys.max() > 0xFFFF:
            raise ValueError("its pixels have more than 16 bits")
        # Pillow holds 16-bit PGM files in 32 bits, and some programs write 8-bit greys so.
        sixteen = image.mode != "I" or greys.max() > 0xFF
        image = Image.fromarray((greys >> 8 if sixteen else greys).astype(np.uint8))
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return image.convert("RGB")
