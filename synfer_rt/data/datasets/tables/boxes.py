"""Face boxes in tables, and images cropped to them."""

from __future__ import annotations

import io
import math
import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace
from functools import partial

from synfer_rt.data.datasets.items import Found, Item, Skipped, Within
from synfer_rt.data.images import FORMATS, MAX_PIXELS
from synfer_rt.faces.boxes import Box

_PREFIXES = ("face", "facebox", "bbox", "box", "")
_SIZES = (("x", "y", "width", "height"), ("x", "y", "w", "h"), ("left", "top", "width", "height"))
_CORNERS = (
    ("left", "top", "right", "bottom"),
    ("xmin", "ymin", "xmax", "ymax"),
    ("minx", "miny", "maxx", "maxy"),
    ("x1", "y1", "x2", "y2"),
    ("x0", "y0", "x1", "y1"),
)
NOT_USED = (
    "its column {} has face boxes, which are not used because they may end with a size or with a "
    "corner; write them in the columns face_x, face_y, face_width and face_height"
)
"""Why boxes in a column are not used."""
_FRAGMENT = re.compile(r"#xywh=(-?\d{1,9}),(-?\d{1,9}),(\d{1,9}),(\d{1,9})$", re.ASCII)


def split_fragment(name: str) -> tuple[str, Box | None]:
    """A name without its fragment, and the box in the fragment; None if it has none."""
    found = _FRAGMENT.search(name)
    if not found:
        return name, None
    return name[: found.start()], Box(*map(int, found.groups()))


@dataclass(frozen=True)
class BoxColumns:
    """The four columns of a table that give a face box, by their keys.

    They are left, top, width and height; with `corners` they are left, top, right and bottom.
    """

    names: tuple[str, ...]
    corners: bool


def box_columns(columns: Collection[str]) -> BoxColumns | None:
    """Those of these columns that give a face box, if any."""
    for corners, forms in ((False, _SIZES), (True, _CORNERS)):
        for prefix in _PREFIXES:
            for form in forms:
                names = tuple(prefix + part for part in form)
                if all(name in columns for name in names):
                    return BoxColumns(names, corners)
    return None


def box_of(row: Mapping[str, object], columns: BoxColumns) -> Box | str | None:
    """The face box of a row; None if its cells are empty, or what is wrong with them."""
    cells = [str("" if row.get(name) is None else row[name]).strip() for name in columns.names]
    if not all(cells):
        return None
    shown = f"its face box {', '.join(cells)}"
    try:
        numbers = [float(cell) for cell in cells]
    except ValueError:
        return f"{shown} is not four numbers"
    if not all(math.isfinite(number) and abs(number) < 1e9 for number in numbers):
        return f"{shown} is not four numbers of pixels"
    left, top, right, bottom = numbers
    width, height = (right - left, bottom - top) if columns.corners else (right, bottom)
    if width <= 0 or height <= 0:
        return f"{shown} is empty"
    if max(map(abs, numbers)) <= 1:
        return f"{shown} is in fractions of the image; write it in pixels"
    return Box(round(left), round(top), max(1, round(width)), max(1, round(height)))


def cropped(read: Callable[[], bytes], box: Box) -> bytes:
    """The part `box` of the image file that `read` returns, as a PNG file.

    A part of the box that is outside the image is left out. Raises OSError if the file is no image,
    or less than half of the box is inside it.
    """
    from PIL import Image, ImageOps

    try:
        with Image.open(io.BytesIO(read()), formats=FORMATS) as image:
            if image.width * image.height > MAX_PIXELS:
                raise OSError(f"it has {image.width} x {image.height} pixels, which is too large")
            picture = ImageOps.exif_transpose(image)
            corners = _inside(box, picture.width, picture.height)
            part = picture.crop(corners)
    except OSError:
        raise
    except Exception as error:  # each decoder of Pillow raises errors of its own kind
        raise OSError(f"it cannot be decoded: {error}") from None
    file = io.BytesIO()
    (part.convert("RGB") if part.mode in ("CMYK", "YCbCr", "LAB", "HSV") else part).save(
        file, "PNG"
    )
    return file.getvalue()


def in_box(item: Item, box: Box | None) -> Item:
    """The part of an image that is in a box, as an item of its own; the whole image for None."""
    if box is None:
        return item
    within = Within(item.read, box)
    read = partial(cropped, item.read, box)
    return replace(item, name=item.name + box.fragment, read=read, within=within)


def whole(item: Item) -> Callable[[], bytes]:
    """What returns the bytes of the image of which `item` may be the part in a box."""
    return item.read if item.within is None else item.within.read


def boxed(item: Item, box: Box | str | None) -> Found:
    """The part of an image in the box that `box_of` returned, or the whole with what is wrong."""
    if isinstance(box, str):
        yield Skipped(item.name, f"{box}; the whole image is used")
        box = None
    yield in_box(item, box)


def _inside(box: Box, width: int, height: int) -> tuple[float, float, float, float]:
    """The corners of the part of a box inside an image. Raises OSError as `cropped` does."""
    left, top = max(0, box.left), max(0, box.top)
    right, bottom = min(width, box.left + box.width), min(height, box.top + box.height)
    if 2 * max(0, right - left) * max(0, bottom - top) < box.width * box.height:
        raise OSError(
            f"its face box ({box.width} x {box.height} pixels at {box.left}, {box.top}) is "
            f"outside the image of {width} x {height}; if the images are cropped already, "
            "remove the boxes from the table"
        )
    return left, top, right, bottom
