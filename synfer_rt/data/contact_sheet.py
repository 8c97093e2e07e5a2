"""A picture of a run: the first samples of each class in a row, with the class's name.

It is a page for a browser, since readers of datasets take every image file for a sample.
"""

from __future__ import annotations

import base64
import html
import io
import itertools
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from synfer_rt.data.images import in_utf8
from synfer_rt.data.writers import read, run_file
from synfer_rt.data.writers.atomic import disk_errors, write_beside_others
from synfer_rt.errors import UserError
from synfer_rt.paths import whole_name

if TYPE_CHECKING:
    from PIL import Image, ImageFont

FILE = "contact-sheet.html"
PER_CLASS = 8
_SMALLEST, _LARGEST = 96, 192  # pixels that a tile's longer side should have
_MOST = 4096
"""Samples that are read to find those of rare classes."""
_MARGIN = 6
_BACKGROUND, _INK = (255, 255, 255), (32, 32, 32)
_PAGE = """\
<!doctype html>
<meta charset="utf-8">
<title>{name}</title>
<img alt="The first samples of each class" src="data:image/png;base64,{png}">
"""


def write_contact_sheet(
    out: Path,
    labels: Sequence[str],
    shows: Callable[[Mapping[str, Any]], bool] = lambda record: True,
) -> Path:
    """Write the contact sheet of the finished run in `out` to its own folder; returns its path.

    `labels` are the requested ones in the order in which they take turns. An image counts if
    `shows` is true of its record. Raises UserError if the disk is full or not writable, and if a
    file of the run is missing.
    """
    shown = (sample for sample in read(out) if shows(sample[0]))
    samples = itertools.islice(shown, _looked_at(labels, run_file.load(out).get("class_counts")))
    picture = io.BytesIO()
    try:
        contact_sheet(samples, labels).save(picture, "PNG")
    except OSError as error:
        raise UserError(
            f"{error.filename or out} of the finished run cannot be read "
            f"({error.strerror or error}); repeat the run with another `out`."
        ) from None
    png = base64.b64encode(picture.getvalue()).decode()
    page = _PAGE.format(name=html.escape(in_utf8(whole_name(out).name)), png=png)
    file = run_file.folder(out) / FILE
    with disk_errors(file):
        write_beside_others(file, page.encode(), file.parent)
    return file


def picture_of(page: object) -> str:
    """The picture of a contact sheet, for a notebook; empty where `page` is no file that is there.

    The file is one that `write_contact_sheet` wrote.
    """
    if not isinstance(page, Path) or not page.is_file():
        return ""
    text = page.read_text()
    return text[text.index("<img") :].replace("<img", '<img style="max-width:100%"')


def _looked_at(labels: Sequence[str], counts: Mapping[str, int] | None) -> int:
    """How many samples have PER_CLASS of each label among them, _MOST at most.

    They take turns, or a plan has their `counts`: then every beginning of a run has the shares of
    the whole, within less than one image of each class.
    """
    turns = PER_CLASS * len(labels)
    if not counts:
        return turns
    whole, rarest = sum(counts.values()), min(counts.values())
    return max(turns, min((PER_CLASS + 1) * -(-whole // rarest), _MOST))


def contact_sheet(
    samples: Iterable[tuple[dict[str, Any], bytes]], labels: Sequence[str]
) -> Image.Image:
    """The sheet of (record, PNG bytes): a row for each label, PER_CLASS columns at most.

    Small images are enlarged and large ones reduced by a whole number, so that the pixels stay
    as they are.
    """
    from PIL import Image, ImageDraw

    rows: dict[str, list[Image.Image]] = {label: [] for label in labels}
    for record, png in samples:
        row = rows[record["requested_label"]]
        if len(row) < PER_CLASS:
            row.append(_tile(Image.open(io.BytesIO(png)).convert("RGB")))
    tiles = [tile for row in rows.values() for tile in row]
    width = max((tile.width for tile in tiles), default=_SMALLEST)
    height = max((tile.height for tile in tiles), default=_SMALLEST)
    columns = max((len(row) for row in rows.values()), default=0)

    font = _font(max(14, height // 7))
    left = int(max(font.getlength(label) for label in labels)) + 2 * _MARGIN
    size = (
        left + columns * (width + _MARGIN),
        _MARGIN + len(rows) * (height + _MARGIN),
    )
    sheet = Image.new("RGB", size, _BACKGROUND)
    draw = ImageDraw.Draw(sheet)
    for y, (label, row) in enumerate(rows.items()):
        top = _MARGIN + y * (height + _MARGIN)
        draw.text((left - _MARGIN, top + height // 2), label, _INK, font, anchor="rm")
        for x, tile in enumerate(row):
            sheet.paste(tile, (left + x * (width + _MARGIN), top))
    return sheet


def _tile(image: Image.Image) -> Image.Image:
    from PIL import Image

    longer = max(image.size)
    if longer > _LARGEST:
        return image.reduce(-(-longer // _LARGEST))
    factor = -(-_SMALLEST // longer)
    size = (image.width * factor, image.height * factor)
    return image.resize(size, Image.Resampling.NEAREST)


def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    from PIL import ImageFont

    return ImageFont.load_default(size)
