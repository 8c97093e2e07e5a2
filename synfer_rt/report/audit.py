"""The section on people: how often attributes occur, and how often their images are accepted.

After the fairness audits of facial-expression data by age, gender and ancestry (arXiv 2410.19444):
a class or a person that annotators accept less often is rarer in what is kept.
"""

from __future__ import annotations

from collections.abc import Sequence
from xml.etree.ElementTree import Element

from synfer_rt.report import plots
from synfer_rt.report.acceptance import Acceptance, Hits
from synfer_rt.report.facts import Coded, Facts
from synfer_rt.report.intervals import difference
from synfer_rt.report.markup import gallery, grouped, percent, tag
from synfer_rt.report.prompt_attributes import AUDITED


def audit(facts: Facts, run: str, beside: Sequence[Facts]) -> list[Element]:
    """Tables with a group of lines for each attribute: those that are audited, and the others.

    The axis is that of all runs `beside` each other.
    """
    hits = [
        hits for one in beside for coded in one.attributes.values() for hits in one.hits_of(coded)
    ]
    acceptance = Acceptance(facts, hits)
    head = [
        tag("th", "attribute", scope="col", class_="text"),
        tag("th", "images", scope="col"),
        tag("th", "share", scope="col", class_="text"),
        acceptance.head(),
    ]
    tables: list[Element] = []
    for audited in True, False:
        groups = [
            _group(facts, name, coded, acceptance, run)
            for name, coded in facts.attributes.items()
            if (name in AUDITED) == audited
        ]
        if groups:
            tables.append(tag("table", tag("thead", tag("tr", head)), groups, class_="grouped"))
    return tables


def _group(facts: Facts, name: str, coded: Coded, acceptance: Acceptance, run: str) -> Element:
    """The lines of an attribute, below a heading with the largest difference of acceptance."""
    counts, hits = coded.count(facts.readable), facts.hits_of(coded)
    gap = _largest_gap(coded.words, hits) if name in AUDITED else None
    title = [tag("b", name), tag("span", gap, class_="gap") if gap else None]
    heading = tag("th", title, colspan=3 + acceptance.columns, scope="rowgroup")
    lines = [tag("tr", heading, class_="group")]
    whole = int(facts.readable.sum())
    for word, count, one in zip(coded.words, counts, hits, strict=True):
        if not count:
            continue
        share = int(count) / whole
        link = tag("a", word, href=gallery(run=run, **{name.replace(" ", "-"): word}))
        cells = [
            tag("th", link, scope="row"),
            tag("td", grouped(int(count))),
            tag("td", plots.bar(share, percent(share)), " ", percent(share), class_="plot"),
        ]
        lines.append(tag("tr", cells, acceptance.cells(one)))
    if silent := whole - int(counts.sum()):
        share = tag("td", percent(silent / whole), class_="plot faint")
        rest = [tag("td", "") for _ in range(acceptance.columns)]
        first = tag("th", "not said", scope="row", class_="faint")
        lines.append(tag("tr", first, tag("td", grouped(silent), class_="faint"), share, rest))
    return tag("tbody", lines)


def _largest_gap(words: Sequence[str], hits: Sequence[Hits]) -> str | None:
    """The attribute's most and least accepted words, with the interval of the difference."""
    known = [(one[0] / one[1], word, one) for word, one in zip(words, hits, strict=True) if one[1]]
    if len(known) < 2:
        return None
    (_, lowest, few), (_, highest, many) = min(known), max(known)
    if lowest == highest:
        return None
    low, high = difference(many, few)
    gap = many[0] / many[1] - few[0] / few[1]
    shown = "" if low > 0 else "; no difference is shown"
    numbers = f"{100 * gap:.1f} points ({100 * low:.1f} to {100 * high:.1f}{shown})"
    return f"{highest} above {lowest}: {numbers}"
