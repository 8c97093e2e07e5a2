"""The section on action units: how strong they are, in all images and in each class."""

from __future__ import annotations

from xml.etree.ElementTree import Element

import numpy as np

from synfer_rt.report import plots
from synfer_rt.report.facts import Facts
from synfer_rt.report.markup import gallery, percent, tag
from synfer_rt.vocabulary.facs import ACTION_UNITS

_BINS = 10
_PRESENT = 0.05
"""Weaker intensities are what a reader says of a face without the unit."""
_SHADES = 8


def units(facts: Facts, run: str) -> tuple[Element, list[str]] | None:
    """A line for each action unit, and the sides that have none, being equal to their unit."""
    if not facts.units:
        return None
    equal = [name for name in facts.units if _equals_its_unit(facts, name)]
    shown = [i for i, name in enumerate(facts.units) if name not in equal]
    classes = [i for i in range(len(facts.classes)) if (facts.label.codes == i).any()]
    head = [
        tag("th", "action unit", scope="col", class_="text", colspan=2),
        tag("th", f"above {_PRESENT}", scope="col"),
        tag("th", "intensity, 0 to 1", scope="col", class_="text"),
        tag("th", "median", scope="col"),
        [tag("th", tag("span", facts.classes[i]), scope="col", class_="turned") for i in classes],
    ]
    lines = [_line(facts, i, classes, run) for i in shown]
    table = tag("table", tag("thead", tag("tr", head)), tag("tbody", lines), class_="units")
    return table, equal


def _line(facts: Facts, unit: int, classes: list[int], run: str) -> Element:
    name, values = facts.units[unit], facts.aus[:, unit]
    known = np.isfinite(values)
    above = values[known & (values > _PRESENT)]
    counts, _ = np.histogram(above, np.linspace(0, 1, _BINS + 1))
    median = float(np.median(above)) if len(above) else 0.0
    share = len(above) / max(int(known.sum()), 1)
    says = f"{name}: of {len(above)} intensities above {_PRESENT} half are above {median:.2f}"
    means: list[Element] = []
    for place in classes:
        of_class = values[known & (facts.label.codes == place)]
        mean = float(of_class.mean()) if len(of_class) else 0.0
        shade = 0 if mean < 0.005 else 1 + min(int(mean * _SHADES), _SHADES - 1)
        text = f"{mean:.2f}".removeprefix("0") if shade else "·"
        means.append(tag("td", text, class_=f"s{shade}" if shade else "faint"))
    link = tag("a", name, href=gallery(run=run, **{name: "0.5..1", "sort": name}))
    return tag(
        "tr",
        tag("th", link, scope="row"),
        tag("td", ACTION_UNITS.get(name.upper(), ""), class_="text faint"),
        tag("td", percent(share)),
        tag("td", plots.spark(counts.tolist(), says), class_="plot"),
        tag("td", f"{median:.2f}"),
        means,
    )


def _equals_its_unit(facts: Facts, side: str) -> bool:
    """Whether a side such as L12 has the intensity of AU12 in every image."""
    unit = f"AU{side[1:]}"
    if side[0] not in "LR" or unit not in facts.units:
        return False
    one, other = (facts.aus[:, facts.units.index(name)] for name in (side, unit))
    return bool(np.array_equal(one, other, equal_nan=True))
