"""How results show themselves in a notebook: the HTML that their `_repr_html_` returns.

Notebooks call `_repr_html_` on the last value of a cell (IPython, rich display). Every text is
escaped, and nothing is loaded from elsewhere.
"""

from __future__ import annotations

import base64
import html
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from synfer_rt.data import png

_SMALLEST = 96
"""Pixels that the longer side of a shown picture has at least."""
_LARGEST = 256


@dataclass(frozen=True)
class Figure:
    """A picture uint8 [H, W, 3], the lines below it, and what a pointer that rests on it says."""

    picture: np.ndarray
    caption: Sequence[str]
    title: str = ""


def figures(shown: Sequence[Figure], more: str = "") -> str:
    """Pictures of one size side by side, as HTML; `more` is said below them."""
    files = png.encode([figure.picture for figure in shown])
    tiles = "".join(map(_figure, shown, files))
    below = f"<p>{html.escape(more)}</p>" if more else ""
    return f'<div style="display:flex;flex-wrap:wrap;gap:8px">{tiles}</div>{below}'


def _figure(figure: Figure, file: bytes) -> str:
    height, width = figure.picture.shape[:2]
    longer = max(height, width)
    scale = -(-_SMALLEST // longer) if longer < _SMALLEST else min(1, _LARGEST / longer)
    encoded = base64.b64encode(file).decode()
    size = f'width="{round(width * scale)}" height="{round(height * scale)}"'
    sharp = "image-rendering:pixelated" if scale > 1 else ""
    alt = html.escape(", ".join(figure.caption))
    lines = "<br>".join(map(html.escape, figure.caption))
    return (
        f'<figure style="margin:0;width:{max(round(width * scale), _SMALLEST)}px" '
        f'title="{html.escape(figure.title)}">'
        f'<img {size} style="{sharp}" alt="{alt}" src="data:image/png;base64,{encoded}">'
        f'<figcaption style="font-size:smaller">{lines}</figcaption></figure>'
    )


def table(head: Sequence[str], rows: Iterable[Sequence[object]], caption: str = "") -> str:
    """A table as HTML; numbers are set to the right."""
    top = "".join(f'<th scope="col">{html.escape(name)}</th>' for name in head)
    body = "".join(f"<tr>{''.join(map(_cell, row))}</tr>" for row in rows)
    said = f'<caption style="text-align:left">{html.escape(caption)}</caption>' if caption else ""
    return f"<table>{said}<thead><tr>{top}</tr></thead><tbody>{body}</tbody></table>"


def _cell(value: object) -> str:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    side = "right" if number else "left"
    return f'<td style="text-align:{side}">{html.escape(str(value))}</td>'


def percentages(shares: Mapping[str, float], most: int = 3) -> str:
    """The `most` largest of shares 0 to 1, as `happy 93 %, neutral 4 %`; those below 1 % not."""
    largest = sorted(shares.items(), key=lambda share: -share[1])[:most]
    return ", ".join(f"{name} {100 * share:.0f}\u00a0%" for name, share in largest if share >= 0.01)
