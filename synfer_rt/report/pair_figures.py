"""The section on nearest duplicates: how near images lie to each other, and the nearest pairs."""

from __future__ import annotations

from xml.etree.ElementTree import Element

import numpy as np

from synfer_rt.report import plots
from synfer_rt.report.duplicates import Nearest
from synfer_rt.report.facts import Facts
from synfer_rt.report.markup import gallery, grouped, tag
from synfer_rt.report.reading import Reading

_PAIRS, _BINS = 12, 32
_LIMITS = {0: "equal", 1: "at most 1 level", 2: "at most 2 levels", 4: "at most 4 levels"}
"""Levels up to which images are counted, in words."""


def nearest_pairs(facts: Facts, read: Reading, found: Nearest, run: str) -> Element | None:
    """A histogram of the distance to the nearest image, counts, and the nearest pairs."""
    distances = found.distance[np.isfinite(found.distance)]
    if not len(distances):
        return None
    end = max(4.0, float(np.ceil(np.quantile(distances, 0.995))))
    counts, _ = np.histogram(np.minimum(distances, end), np.linspace(0, end, _BINS + 1))
    median = float(np.median(distances))
    says = f"Half of {len(distances)} images differ from their nearest by over {median:.1f} levels"
    words = f"median {median:.1f} levels"
    caption = tag("figcaption", tag("b", "to the nearest image"), " ", tag("span", words))
    picture = plots.histogram(counts, np.zeros_like(counts), (0, end), says)
    rows = [
        tag(
            "tr", tag("th", words, scope="row"), tag("td", grouped(int((distances <= limit).sum())))
        )
        for limit, words in _LIMITS.items()
    ]
    title = tag("th", "nearest image", scope="col", class_="text"), tag("th", "images", scope="col")
    table = tag("table", tag("thead", tag("tr", title)), tag("tbody", rows))
    pairs = [_pair(facts, read, *pair, run) for pair in found.pairs(_PAIRS)]
    return tag(
        "div",
        tag("div", tag("figure", caption, picture), table, class_="beside"),
        tag("ol", pairs, class_="pairs"),
    )


def _pair(facts: Facts, read: Reading, one: int, other: int, distance: float, run: str) -> Element:
    """Two images that are near each other, each a link to the gallery."""
    images = [_image(facts, read, place, run) for place in (one, other)]
    return tag("li", images, tag("span", f"{distance:.2f}", class_="distance"))


def _image(facts: Facts, read: Reading, place: int, run: str) -> Element:
    label = facts.label.codes[read.rows[place]]
    words = f"image {read.rows[place]}, {facts.classes[label] if label >= 0 else 'no label'}"
    source = f"data:image/webp;base64,{read.thumbnails.base64(place)}"
    image = tag("img", src=source, alt=words, width=64, height=64)
    link = gallery(run=run, sort="nearest", open=f"{run or 'a'}{read.rows[place]}")
    return tag("a", image, href=link, title=words)
