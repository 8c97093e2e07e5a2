"""The cells of tables that say how many images of a group are accepted, with the interval."""

from __future__ import annotations

from collections.abc import Sequence
from xml.etree.ElementTree import Element

from synfer_rt.report import plots
from synfer_rt.report.facts import Facts
from synfer_rt.report.intervals import wilson
from synfer_rt.report.markup import NOTHING, percent, points, tag

Hits = tuple[int, int]
"""How many images are accepted, and how many could be."""
_FEW = 30
"""Groups of fewer images do not widen the axis."""


class Acceptance:
    """The columns of a table about `facts`; there are none if nothing is judged.

    The intervals have an axis that holds all those of `groups`, also of other runs beside it.
    """

    def __init__(self, facts: Facts, groups: Sequence[Hits]) -> None:
        self._whole = facts.hits
        lows = [wilson(*one)[0] for one in groups if one[1] >= _FEW] or [0.0]
        self._scale = max(0, int(min(lows) * 20)) / 20, 1.0
        self.columns = 2 if facts.hits[1] else 0

    def head(self, share: str = "accepted") -> list[Element]:
        """The headings of the columns: the `share`, and its interval."""
        if not self.columns:
            return []
        low, high = (f"{100 * end:.0f}" for end in self._scale)
        title = f"{low} to {high} %, with 95 % interval"
        return [tag("th", share, scope="col"), tag("th", title, scope="col", class_="text")]

    def cells(self, hits: Hits) -> list[Element]:
        """The cells of a group of images."""
        accepted, judged = hits
        if not self.columns:
            return []
        if not judged:
            return [tag("td", NOTHING), tag("td", "")]
        ends, share = wilson(accepted, judged), accepted / judged
        mark = self._whole[0] / self._whole[1]
        says = f"{percent(share)}, interval {percent(ends[0])} to {percent(ends[1])}"
        picture = plots.interval(share, ends, self._scale, mark, says)
        return [tag("td", percent(share)), tag("td", picture, " ", points(ends), class_="plot")]
