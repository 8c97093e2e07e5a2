"""Small plots as SVG: a share as a bar, an interval, a histogram.

They take their colours from the page's style sheet, and say in words what they show.
"""

from __future__ import annotations

from collections.abc import Sequence
from xml.etree.ElementTree import Element

import numpy as np

from synfer_rt.report.markup import tag

_BAR = 80, 10
_INTERVAL = 128, 14
_HISTOGRAM = 216, 84
_FOOT, _HEAD = 15, 4
HATCH = "hatch"
"""The id of the pattern of what is not accepted."""


def patterns() -> Element:
    """The hatching that other plots refer to; it has no size of its own."""
    line = tag("path", d="M-1,1 l2,-2 M0,5 l5,-5 M4,6 l2,-2", class_="hatching")
    pattern = tag("pattern", line, id=HATCH, width=5, height=5, patternUnits="userSpaceOnUse")
    return tag("svg", tag("defs", pattern), width=0, height=0, class_="defs", aria_hidden="true")


def bar(share: float, says: str) -> Element:
    """A share in [0, 1] as a bar."""
    width, height = _BAR
    track = tag("rect", width=width, height=height, class_="track")
    filled = tag(
        "rect", width=max(share * width, 0.5 if share else 0), height=height, class_="fill"
    )
    return _svg(_BAR, says, track, filled)


def interval(
    share: float, ends: tuple[float, float], scale: tuple[float, float], mark: float, says: str
) -> Element:
    """A share as a dot, its interval as a line, both on `scale`; `mark` is a line across."""
    width, height = _INTERVAL
    low, high = scale

    def place(value: float) -> float:
        return 4 + (width - 8) * (min(max(value, low), high) - low) / (high - low)

    middle = height / 2
    ends_at = [place(end) for end in ends]
    return _svg(
        _INTERVAL,
        says,
        tag("line", x1=4, x2=width - 4, y1=middle, y2=middle, class_="track-line"),
        tag("line", x1=place(mark), x2=place(mark), y1=0, y2=height, class_="mark"),
        tag("line", x1=ends_at[0], x2=ends_at[1], y1=middle, y2=middle, class_="whisker"),
        [tag("line", x1=x, x2=x, y1=middle - 3, y2=middle + 3, class_="whisker") for x in ends_at],
        tag("circle", cx=place(share), cy=middle, r=3, class_="dot"),
    )


def histogram(
    accepted: np.ndarray, others: np.ndarray, ends: tuple[float, float], says: str
) -> Element:
    """Counts int [bins] between two `ends`: those accepted, and the others hatched above them."""
    width, height = _HISTOGRAM
    base, room = height - _FOOT, height - _FOOT - _HEAD
    total = accepted + others
    top = max(int(total.max(initial=0)), 1)
    step = width / len(total)
    bars: list[Element] = []
    for place, (below, above) in enumerate(zip(accepted, others, strict=True)):
        x, lower, upper = place * step + 0.5, room * below / top, room * above / top
        if below:
            lower = max(lower, 0.75)
            bars.append(_column(x, base - lower, step - 1, lower, class_="fill"))
        if above:
            upper = max(upper, 1.5)
            bars.append(_column(x, base - lower - upper, step - 1, upper, fill=f"url(#{HATCH})"))
            bars.append(_column(x, base - lower - upper, step - 1, upper, class_="outline"))
    ticks = [
        tag("text", f"{value:.3g}", x=x * width, y=height - 3, class_=f"tick {anchor}")
        for x, anchor in ((0.0, "start"), (0.5, "middle"), (1.0, "end"))
        for value in (ends[0] + x * (ends[1] - ends[0]),)
    ]
    axis = tag("line", x1=0, x2=width, y1=base, y2=base, class_="axis")
    return _svg(_HISTOGRAM, says, bars, axis, ticks)


def spark(counts: Sequence[int], says: str) -> Element:
    """A histogram without axes, for a line of a table."""
    width, height = 80, 16
    top, step = max([*counts, 1]), width / len(counts)
    bars = [
        _column(i * step + 0.5, height - max(height * n / top, 0.75), step - 1,
                max(height * n / top, 0.75), class_="fill")
        for i, n in enumerate(counts) if n
    ]  # fmt: skip
    axis = tag("line", x1=0, x2=width, y1=height, y2=height, class_="axis")
    return _svg((width, height), says, bars, axis)


def _column(x: float, y: float, width: float, height: float, **attributes: str) -> Element:
    return tag("rect", x=x, y=y, width=width, height=height, **attributes)


def _svg(size: tuple[int, int], says: str, *children: Element | Sequence[Element]) -> Element:
    width, height = size
    box = f"0 0 {width} {height}"
    return tag(
        "svg", *children, width=width, height=height, viewBox=box, role="img", aria_label=says
    )
