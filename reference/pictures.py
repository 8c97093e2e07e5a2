"""Pictures as small PNG files: 256 colours are enough for charts and for sheets of small faces."""

from __future__ import annotations

import io
from pathlib import Path
from typing import TYPE_CHECKING, Any

from PIL import Image

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def save_with_palette(image: Image.Image, path: Path) -> None:
    """Write `image` as PNG with the 256 colours that fit it best.

    It is not dithered, because noise would make the enlarged pixels of a sheet differ.
    """
    colours = image.convert("RGB").quantize(256, Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE)
    colours.save(path, "PNG", optimize=True)


def save_chart(figure: Figure, path: Path, **options: Any) -> None:
    """Write a matplotlib figure as PNG with a palette; `options` are those of `savefig`."""
    drawn = io.BytesIO()
    figure.savefig(drawn, format="png", **options)
    save_with_palette(Image.open(drawn), path)
