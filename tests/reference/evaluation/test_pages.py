"""The parts of a page of results."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch", reason="judging needs PyTorch (synfer-rt[reference])")

from reference.evaluation import copies, pages, report
from reference.evaluation.action_units import MAIN

DOCS = Path(__file__).parents[3] / "docs"


def test_an_error_bar_ends_where_shares_end():
    shares = np.array([[50.0, 10.0], [99.0, 3.0], [2.0, 5.0]])
    assert pages.bars(shares).tolist() == [[10, 3, 2], [10, 1, 5]]


def test_only_intervals_without_zero_are_beyond_it():
    gains = {"up": (0.2, 0.1), "none": (0.1, 0.1), "down": (-0.2, 0.1), "nor": (-0.1, 0.2)}
    assert pages.beyond_zero(gains) == "above 0: up; below 0: down"
    assert pages.beyond_zero({"none": (0.1, 0.2)}) == "above 0: none; below 0: none"


def a_measured_variety() -> dict:
    spread = {"renders": (0.0127, 0.0015), "samples": (0.0174, 0.0014)}
    spread["difference"] = (0.0047, 0.0012)
    near = {"images": 560, "median": 0.24, "quantile_5": 0.1, "least": 0.05, "as_near": 3}
    sets = {
        "samples": near | {"p": 1e-6, "farther": 0.4},
        copies.HELD: near | {"median": 0.26, "as_near": 7},
    }
    same = {"share": (0.23, 0.013), "chance": 0.0016}
    return {
        "settings": {"layout": "bank"},
        "diversity": {
            "images": 560,
            "splits": 40,
            "frechet": spread | {"farther": 0.975},
            "pairwise": {"renders": (0.6, 0.01), "samples": (0.5, 0.01)},
        },
        "copies": {
            "training_renders": 1000,
            "within": 0.09,
            "originals_found": 0.87,
            "same_person": {"attribute reader": same, "judge": same | {"share": (0.001, 0.001)}},
            "sets": sets,
        },
    }


def test_a_distance_over_splits_has_a_spread_and_no_interval():
    lines = report.variety(a_measured_variety())
    assert "| samples | 0.0174 (0.0014) | 0.500 ± 0.010 |" in lines
    assert "| samples - renders | +0.0047 (0.0012) |  |" in lines
    assert "In 98 % of the splits" in "\n".join(lines)


def test_the_page_says_of_what_the_layouts_are_and_how_well_people_are_told_apart():
    found = a_measured_variety()
    text = "\n".join(report.memorisation(found))
    assert "layout bank, whose faces are encoded training renders" in text
    assert "the same person in 23.0 ± 1.3 % of cases (in the judge's features in 0.1 %" in text
    assert copies.reading(found["copies"])[0] in text
    found["settings"]["layout"] = "none"
    assert "Samples start from noise alone" in "\n".join(report.memorisation(found))


def test_the_committed_page_says_what_its_numbers_say_and_links_all_others():
    found = json.loads((DOCS / "results" / "results.json").read_text())
    assert (DOCS / "results.md").read_text() == report.markdown(found, report.FURTHER)
    for name in report.FURTHER:
        assert (DOCS / "results" / f"{name}.md").is_file()


def test_the_model_card_promises_no_more_than_was_measured():
    card = (DOCS.parent / "engines/synfer-mini/README.md").read_text()
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
