"""The parts of a page of results."""

from __future__ import annotations

import json
import re
from pathlib import Path

import click
import numpy as np
import pytest
from click.testing import CliRunner

pytest.importorskip("torch", reason="judging needs PyTorch (synfer-rt[reference])")

from reference.evaluation import pages, report
from reference.evaluation.action_units import MAIN

DOCS = Path(__file__).parents[3] / "docs"


def test_a_page_names_the_command_that_wrote_it_but_no_paths():
    @click.command()
    @click.option("--out", type=Path)
    @click.option("--images", default=3)
    @click.option("--steps", default=8)
    @click.option("--layouts", is_flag=True)
    def main(out, images, steps, layouts):
        click.echo(pages.command("reference.one"))

    said = CliRunner().invoke(main, ["--out", "here", "--steps", "9", "--layouts"]).output
    assert said == "python -m reference.one --steps 9 --layouts\n"


def test_an_error_bar_ends_where_shares_end():
    shares = np.array([[50.0, 10.0], [99.0, 3.0], [2.0, 5.0]])
    assert pages.bars(shares).tolist() == [[10, 3, 2], [10, 1, 5]]


def test_the_committed_page_says_what_its_numbers_say_and_links_all_others():
    found = json.loads((DOCS / "results" / "results.json").read_text())
    assert (DOCS / "results.md").read_text() == report.markdown(found, report.FURTHER)
    for name in report.FURTHER:
        assert (DOCS / "results" / f"{name}.md").is_file()


def test_the_model_card_promises_no_more_than_was_measured():
    card = (DOCS.parent / "reference/checkpoint/synfer-mini/README.md").read_text()
    (row,) = (line for line in card.splitlines() if line.startswith("| measured quality"))
    judged, photo, main, further, prompted = (
        float(n) for n in re.findall(r"at least ([\d.]*\d)", row)
    )
    found = json.loads((DOCS / "results" / "results.json").read_text())
    units = {unit: one["rank_correlation"] for unit, one in found["action_units"].items()}
    listed = row[row.index("AU 1,") : row.index("at least 0.7")]
    first = [f"AU{number}" for number in re.findall(r"\d+", listed)]
    assert found["samples"]["judge"]["accuracy"] >= judged / 100
    assert found["samples"]["fer"]["accuracy"] >= photo / 100
    assert first == list(MAIN) and min(units[unit] for unit in MAIN) >= main
    assert min(value for unit, value in units.items() if unit not in MAIN) >= further
    read = found["attributes"]["samples"].values()
    assert min(one["agreement"][0] for one in read) >= prompted / 100
