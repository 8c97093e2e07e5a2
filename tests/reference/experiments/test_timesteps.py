"""The search for timesteps finds the nearest schedule, and measures each only once."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

pytest.importorskip("torch", reason="the experiments need synfer-rt[reference]")

import itertools

from reference.experiments import timesteps
from synfer_rt.diffusion.solvers import trajectory
from synfer_rt.sampling.requests import make_requests

pytestmark = pytest.mark.slow


def test_a_search_ends_at_the_least_distance_and_keeps_the_first() -> None:
    target = np.array([900, 640, 310, 70])
    tried = []

    def distance(times: tuple[int, ...]) -> float:
        tried.append(times)
        return float(np.abs(np.array(times) - target).sum())

    found = timesteps.search(distance, (999, 749, 499, 249), (64, 32, 16, 8, 1))
    assert found == (999, 640, 310, 70)
    assert all(times[0] == 999 and times[-1] >= 0 for times in tried)
    assert all(a > b for times in tried for a, b in itertools.pairwise(times))


def test_a_search_does_not_leave_the_schedule() -> None:
    assert timesteps.search(lambda t: float(t[-1]), (9, 5, 3), (4, 1)) == (9, 5, 0)
    assert timesteps.search(lambda t: -float(t[-1]), (9, 5, 3), (4, 1)) == (9, 5, 4)


def test_a_schedule_that_is_the_reference_is_at_no_distance(sampler, tmp_path: Path) -> None:
    bundle = sampler.bundle
    requests = make_requests(bundle, layout="none", seed=1)[:3]
    way = trajectory("ddim", bundle.schedule, 4, 1.0, bundle.prediction_type)
    own = tuple(int(t) for t in way.timesteps)
    starts = sampler.start(requests, way)
    ends = sampler.denoised(requests, starts, way)
    file = tmp_path / "known.json"
    goal = timesteps.Goal(sampler, "ddim", 1.0, requests, starts, ends, file)
    assert goal.distance(own) == pytest.approx(0, abs=1e-6)
    other = (*own[:3], own[3] - 20)
    assert goal.distance(other) > 1e-3
    made = sampler.denoised(requests, starts, goal.way(other))
    each = np.sqrt(((made - ends) ** 2).mean((1, 2, 3)))
    assert goal.distance(other) == pytest.approx(each.mean())
    file.write_text(json.dumps({",".join(map(str, other)): 0.25}))
    again = timesteps.Goal(sampler, "ddim", 1.0, requests, starts, ends, file)
    assert again.distance(other) == 0.25


def test_chosen_timesteps_are_written_with_those_that_the_solver_visits(
    student_options: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    per_class = student_options.index("--per-class")
    options = student_options[:per_class] + student_options[per_class + 2 :]
    options += ["--steps", "2", "--count", "2", "--reference", "3"]
    monkeypatch.setattr(timesteps, "search", lambda distance, begin: (begin[0], begin[1] - 99))
    result = CliRunner().invoke(timesteps.main, options, catch_exceptions=False)
    assert result.exit_code == 0
    rows = json.loads((tmp_path / "out" / "timesteps.json").read_text())["rows"]
    assert [row["own"]["timesteps"] for row in rows] == [[799, 399], [999, 499]]
    assert [row["chosen"]["timesteps"] for row in rows] == [[799, 300], [999, 400]]
    for row in rows:
        fresh = row["fresh"]
        assert fresh["gain"][0] == pytest.approx(fresh["chosen"][0] - fresh["own"][0])
        assert fresh["own"][0] != row["own"]["distance"] > 0
    text = (tmp_path / "out" / "timesteps.md").read_text()
    assert "| dpmpp-2m | layouts, 0.8 | 2 | 799, 399 | 799, 300 |" in text
    assert "| dpmpp-2m | noise | 2 | 999, 499 | 999, 400 |" in text
