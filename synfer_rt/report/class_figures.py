"""The sections on classes: counts and acceptance, confidence, requested and voted labels."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from xml.etree.ElementTree import Element

import numpy as np

from synfer_rt.report import plots
from synfer_rt.report.acceptance import Acceptance
from synfer_rt.report.facts import NONE, Facts
from synfer_rt.report.markup import NOTHING, Children, gallery, grouped, percent, tag

_BINS = 25
_LEFT_OUT = 0.005
"""The share of all images that may lie below the axis; the first bar counts them."""
_SHADES = 8


def counts(facts: Facts, run: str, beside: Sequence[Facts]) -> Element:
    """A line for each class: images requested, labelled, and accepted with the interval.

    The axis is that of all runs `beside` each other.
    """
    everything = np.ones(facts.count, bool)
    requested = facts.requested.count(everything)
    labelled = facts.label.count(facts.readable)
    has_requests = bool(requested.any())
    hits_of_each = facts.hits_of(facts.label)
    groups = [hits for one in beside for hits in (*one.hits_of(one.label), one.hits)]
    acceptance = Acceptance(facts, groups)

    not_all = 0 < facts.hits[1] < labelled.sum()  # such as originals, which nothing votes on

    def line(name: Children, asked: int, count: int, hits: tuple[int, int]) -> Element:
        cells = [_td(grouped(asked)) if has_requests else None, _td(grouped(count))]
        judged = _td(grouped(hits[1])) if not_all else None
        kept = [judged, _td(grouped(hits[0]))] if acceptance.columns else None
        return tag("tr", tag("th", name, scope="row"), cells, kept, acceptance.cells(hits))

    lines = [
        line(tag("a", name, href=gallery(run=run, label=name)), int(asked), int(count), hits)
        for name, asked, count, hits in zip(
            facts.classes, requested, labelled, hits_of_each, strict=True
        )
        if asked or count
    ]
    head = [
        _th("class", "text"),
        _th("requested") if has_requests else None,
        _th("labelled"),
        _th("judged") if not_all else None,
        _th("accepted") if acceptance.columns else None,
        acceptance.head("share"),
    ]
    total = line("all", int(requested.sum()), int(labelled.sum()), facts.hits)
    parts = tag("thead", tag("tr", head)), tag("tbody", lines), tag("tfoot", total)
    return tag("table", *parts)


def confidence(facts: Facts, beside: Sequence[Facts]) -> Iterator[Element]:
    """A histogram for each class of the vote's probability of the label, on one axis for all."""
    known = [one.confidence[np.isfinite(one.confidence)] for one in beside]
    lows = [np.quantile(some, _LEFT_OUT) for some in known if len(some)]
    start = float(np.floor(min(lows, default=0.0) * 10) / 10)
    edges = np.linspace(min(start, 0.9), 1, _BINS + 1)
    for place, name in enumerate(facts.classes):
        of_class = (facts.label.codes == place) & np.isfinite(facts.confidence)
        values = facts.confidence[of_class]
        if not len(values):
            continue
        kept = (facts.accepted & facts.judged)[of_class]
        shown = values.clip(edges[0], 1)
        accepted, _ = np.histogram(shown[kept], edges)
        others, _ = np.histogram(shown[~kept], edges)
        low, median = np.quantile(values, (0.05, 0.5))
        says = (
            f"{name}: of {len(values)} images half have a confidence above {median:.2f}, and 95 in "
            f"100 above {low:.2f}"
        )
        words = f"median {median:.3f}, 5 % below {low:.3f}"
        caption = tag("figcaption", tag("b", name), " ", tag("span", words))
        ends = float(edges[0]), 1.0
        yield tag("figure", caption, plots.histogram(accepted, others, ends, says))


def confusion(facts: Facts, run: str) -> Element | None:
    """Requested labels in rows, the vote's in columns; None if nothing can be compared."""
    both = (facts.requested.codes != NONE) & (facts.voted.codes != NONE) & facts.judged
    if not both.any():
        return None
    size = len(facts.classes)
    cells = facts.requested.codes[both] * size + facts.voted.codes[both]
    table = np.bincount(cells, minlength=size * size).reshape(size, size)
    used = [i for i in range(size) if table[i].any() or table[:, i].any()]
    head = [tag("th", tag("span", facts.classes[i]), scope="col", class_="turned") for i in used]
    lines = [_confusion_line(facts.classes, table, row, used, run) for row in used]
    first = tag("th", "requested ↓ · vote →", class_="corner")
    top = tag("tr", first, head, _th("agree"))
    agree = int(np.trace(table))
    foot = tag(
        "tr",
        tag("th", "all", scope="row"),
        tag("td", f"{grouped(agree)} of {grouped(int(table.sum()))}", colspan=len(used)),
        _td(percent(agree / table.sum())),
    )
    parts = tag("thead", top), tag("tbody", lines), tag("tfoot", foot)
    return tag("table", *parts, class_="confusion")


def _confusion_line(
    classes: tuple[str, ...], table: np.ndarray, row: int, used: list[int], run: str
) -> Element:
    total = int(table[row].sum())
    cells: list[Element] = []
    for column in used:
        count = int(table[row, column])
        share = count / total if total else 0.0
        shade = 0 if not count else 1 + min(int(share * _SHADES), _SHADES - 1)
        same = " same" if row == column else ""
        if count:
            state = {"run": run, "requested": classes[row], "voted": classes[column]}
            says = f"{classes[row]} requested, {classes[column]} voted: {count}, {percent(share)}"
            shown = tag("a", grouped(count), href=gallery(**state), aria_label=says)
        else:
            shown = tag("span", "·", class_="faint")
        cells.append(tag("td", shown, class_=f"s{shade}{same}"))
    agree = percent(int(table[row, row]) / total) if total else NOTHING
    return tag("tr", tag("th", classes[row], scope="row"), cells, _td(agree))


def _th(text: str, class_: str | None = None) -> Element:
    return tag("th", text, scope="col", class_=class_)


def _td(content: str | list[Element | str], class_: str | None = None) -> Element:
    return tag("td", content, class_=class_)
