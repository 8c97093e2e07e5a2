"""The parts of a page of results."""

from __future__ import annotations

import json
from pathlib import Path

import click
import numpy as np
import pytest
from click.testing import CliRunner

pytest.importorskip("torch", reason="judging needs PyTorch (synfer-rt[reference])")

from reference.evaluation import pages, report

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
