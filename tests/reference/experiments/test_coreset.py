"""The comparison of core-sets: what is measured of a choice, and the whole on a few samples."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch", reason="the experiments need synfer-rt[reference]")

from click.testing import CliRunner

from reference.experiments import coreset
from reference.experiments.coreset import Pool
from reference.experiments.training import TrainingSet, one_hot
from reference.tasks import CLASSES
from synfer_rt.coresets.choice import METHODS

EACH = 12


@pytest.fixture
def pool() -> Pool:
    """Each class has EACH images at 0, 1, 2, … in one network, at their doubles in the other."""
    labels = np.tile(np.arange(len(CLASSES)), EACH)
    places = np.repeat(np.arange(EACH), len(CLASSES)).astype(np.float32)[:, None]
    images = np.zeros((len(labels), 2, 2, 3), np.uint8)
    return Pool(TrainingSet(images, one_hot(labels)), places, 2 * places, places[:, 0] > 0)


@pytest.mark.parametrize("method", METHODS)
def test_a_choice_has_equally_many_of_each_class(pool: Pool, method: str) -> None:
    rows = pool.chosen(method, 3, seed=1)
    assert len({*rows}) == len(rows)
    assert np.bincount(pool.faces.classes[rows]).tolist() == [3] * len(CLASSES)


def test_what_a_choice_covers_is_measured_in_both_networks(pool: Pool) -> None:
    rows = np.flatnonzero(np.isin(pool.own[:, 0], (0, 8)))
    found = pool.measures(rows, pool.judged)
    assert found["radius"] == 4 and found["judge_radius"] == 8
    assert found["distance"] == pytest.approx((1 + 2 + 3 + 4 + 3 + 2 + 1 + 1 + 2 + 3) / EACH)
    assert found["judge_distance"] == 2 * found["distance"]
    assert found["right"] == 0.5 and found["coverage"] == found["test_coverage"]


@pytest.mark.slow
def test_all_choices_are_compared(student_options: list[str], tmp_path: Path) -> None:
    few = ["--count", "48", "--repetitions", "2", "--trainings", "1", "--steps", "2"]
    result = CliRunner().invoke(coreset.main, [*student_options, *few], catch_exceptions=False)
    assert result.exit_code == 0
    found = json.loads((tmp_path / "out" / "coreset.json").read_text())
    assert set(found["rows"]) == {coreset.ALL, *(f"{method}, 16" for method in METHODS)}
    assert found["rows"]["random, 16"]["accuracy"]["gain"] == [0, 0]
    radii = [np.mean(found["rows"][f"{method}, 16"]["radius"]) for method in METHODS]
    assert min(radii) == radii[METHODS.index("k-center")]
    page = (tmp_path / "out" / "coreset.md").read_text()
    assert "| random, 16 | 16 |" in page and (tmp_path / "out" / "coreset.png").is_file()
