"""The page that sets a student beside its teacher."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

pytest.importorskip("torch", reason="the experiments need synfer-rt[reference]")

from reference.evaluation import action_units
from reference.evaluation.comparison import Row
from reference.experiments import quality

pytestmark = pytest.mark.slow


def test_a_candidate_is_judged_beside_its_teacher(
    student_options: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(action_units, "MAIN", ("AU12",))
    options = [*student_options, "--from-noise", "2", "--faces", "2", "--steps", "1"]
    options += ["--student", str(tmp_path / "state.pt")]
    for _ in range(2):
        result = CliRunner().invoke(quality.main, options, catch_exceptions=False)
        assert result.exit_code == 0
    out = tmp_path / "work" / "candidates" / tmp_path.name
    found = json.loads((out / "quality.json").read_text())["found"]
    assert list(found) == ["From layouts", "From noise alone", "Action units"]
    text = (out / "quality.md").read_text()
    assert "## From noise alone\n\n16 samples of each. The images of a request differ by" in text
    assert "| AU12 |" in text and "| AU14, left - right |" in text
    # One step without guidance is not two with it.
    assert all(found[start]["image_difference"][0] > 1 for start in list(found)[:2])
    assert len(list((tmp_path / "work").glob("student-*"))) == 4
    assert len(list((tmp_path / "work").glob("samples-*"))) == 4


def test_the_verdict_names_the_gates_that_do_not_hold() -> None:
    good, bad = (
        Row(name, "share", (1, 0), (1, 0), (0, 0), "at least -1", name == "judge")
        for name in ("judge", "fer")
    )
    free = Row("AU agreement", "share", (1, 0), (1, 0), (0, 0))
    assert quality.verdict({"From layouts": {"rows": [good, free]}}) == "All 1 gates hold."
    found = {"From layouts": {"rows": [good, bad]}, "Action units": {"rows": [good, free]}}
    assert quality.verdict(found) == "1 of 3 gates do not hold: fer (from layouts)."
