"""The page on labelling describes every dataset format."""

from __future__ import annotations

import re
from pathlib import Path

from synfer_rt.data.datasets import FORMATS

PAGE = Path(__file__).resolve().parents[2] / "docs" / "labelling.md"


def test_the_table_of_formats_has_a_row_for_each():
    section = PAGE.read_text().partition("### Dataset formats")[2].partition("\n**")[0]
    assert sorted(re.findall(r"^\| `([a-z-]+)` \|", section, re.MULTILINE)) == sorted(FORMATS)
