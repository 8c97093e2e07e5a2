"""The page that sets a student beside its teacher."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

pytest.importorskip("torch", reason="the experiments need synfer-rt[reference]")

import torch

from reference import classifiers, student
from reference.evaluation import action_units
from reference.evaluation.comparison import Row
from reference.experiments import quality
from synfer_rt.bundle import open_bundle


def write_renders(directory: Path, people: int = 24) -> None:
    """Noise of held-out people, two images each."""
    rng, identity = np.random.default_rng(0), 16 * np.arange(people).repeat(2)
    images = rng.integers(0, 256, (2 * people, 64, 64, 3), np.uint8)
    directory.mkdir()
    label = np.arange(2 * people) % 8
    np.savez(directory / "00000.npz", images=images, label=label, identity=identity)


@pytest.fixture
def options(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Tiny counts, networks that have learned nothing, and a student that is the teacher."""
    torch.manual_seed(0)
    for name in ("judge", "au-reader", "attribute-reader"):
        classifiers.save(classifiers.NETWORKS[name].build(), tmp_path, name)
    write_renders(tmp_path / "renders")
    denoiser = student.teacher(open_bundle(), tmp_path / "work")
    torch.save({"average": denoiser.state_dict()}, tmp_path / "state.pt")
    monkeypatch.setattr(action_units, "MAIN", ("AU12",))
    given = {"renders": tmp_path / "renders", "classifiers": tmp_path, "work": tmp_path / "work"}
    counts = {"per-class": 2, "from-noise": 2, "faces": 2, "steps": 1}
    given |= {"student": tmp_path / "state.pt"} | counts
    return [text for name, value in given.items() for text in (f"--{name}", str(value))]


def test_a_candidate_is_judged_beside_its_teacher(options: list[str], tmp_path: Path) -> None:
    for _ in range(2):
        result = CliRunner().invoke(quality.main, options, catch_exceptions=False)
        assert result.exit_code == 0
    out = tmp_path / "work" / "candidates" / tmp_path.name
    found = json.loads((out / "quality.json").read_text())["found"]
    assert list(found) == ["From layouts", "From noise alone", "Action units"]
    text = (out / "quality.md").read_text()
    assert "## From noise alone\n\n16 samples of each. The images of a request differ by" in text
    assert "| AU12 |" in text and "| AU14, left - right |" in text
    # One step without guidance is worse than eight with it.
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
