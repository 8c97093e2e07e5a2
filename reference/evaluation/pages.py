"""The parts of a page of results: numbers, tables, image sheets, figures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

from synfer_rt.backends import default_threads
from synfer_rt.bench.machine import describe


def percent(value: float) -> str:
    return f"{100 * value:.1f}"


def plus_minus(value: tuple[float, float], scale: float = 100, digits: int = 1) -> str:
    """A value and its half-width, by default in percent."""
    return f"{value[0] * scale:.{digits}f} ± {value[1] * scale:.{digits}f}"


def mean_spread(value: tuple[float, float], digits: int = 3, sign: str = "") -> str:
    """A mean and, in brackets, the standard deviation of its values."""
    return f"{value[0]:{sign}.{digits}f} ({value[1]:.{digits}f})"


def beyond_zero(gains: Mapping[str, tuple[float, float]]) -> str:
    """Names whose interval, a value and its half-width, lies above 0, and those below."""
    above = [name for name, (value, half) in gains.items() if value > half]
    below = [name for name, (value, half) in gains.items() if value < -half]
    return f"above 0: {', '.join(above) or 'none'}; below 0: {', '.join(below) or 'none'}"


def bars(shares: np.ndarray) -> np.ndarray:
    """Error bars [2, n], below and above, of shares and half-widths [n, 2] in percent.

    They end at 0 and at 100, the limits of a share.
    """
    values, half = shares.T
    return np.minimum(half, [values, 100 - values])


def machine() -> str:
    """Processor and cores, as the benchmark names them."""
    about = describe(default_threads(), ())
    return f"{about['cpu']}, {about['cores']} cores"


def table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Markdown."""
    lines = [f"| {' | '.join(columns)} |", f"|{'---|' * len(columns)}"]
    return lines + [f"| {' | '.join(row)} |" for row in rows]


def sheet(
    rows: Sequence[tuple[str, Sequence[np.ndarray]]], columns: Sequence[str], zoom: int
) -> Image.Image:
    """A labelled grid of equally sized uint8 images."""
    size = rows[0][1][0].shape[0] * zoom
    left, top = 74, 18
    page = Image.new("RGB", (left + size * len(rows[0][1]), top + size * len(rows)), "white")
    pen = ImageDraw.Draw(page)
    for j, text in enumerate(columns):
        pen.text((left + j * size + 4, 3), text, fill="black")
    for i, (text, images) in enumerate(rows):
        pen.text((4, top + i * size + size // 2 - 6), text, fill="black")
        for j, image in enumerate(images):
            tile = Image.fromarray(image).resize((size, size), Image.Resampling.NEAREST)
            page.paste(tile, (left + j * size, top + i * size))
    return page


def figure(width: float = 7.0, height: float = 4.0, columns: int = 1) -> tuple[Any, Any]:
    """A matplotlib figure and its axes, to be written to a file."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    return pyplot.subplots(1, columns, figsize=(width, height), layout="constrained")
