"""How the time of a system is told."""

from __future__ import annotations

import time
from typing import Any

import pytest

from synfer_rt.bench.runtime import run_of
from synfer_rt.bench.systems import Stopwatch
from synfer_rt.bundle import Bundle


def test_a_stopwatch_adds_up_what_a_stage_took():
    watch = Stopwatch()
    for _ in range(2):
        with watch.stage("denoise"):
            time.sleep(0.02)
    assert 0.04 <= watch.stages["denoise"] < 1


@pytest.mark.parametrize(
    ("settings", "solver", "steps"),
    [
        ({"guidance": 1.0}, "ddim", 7),
        ({"solver": "dpmpp-2m"}, "dpmpp-2m", 7),
        ({"steps": 3}, "ddim", 3),
        ({"timesteps": (900, 500, 100)}, "ddim", 3),
    ],
)
def test_a_variant_differs_in_what_it_names_alone(
    tiny_bundle: Bundle, settings: dict[str, Any], solver: str, steps: int
):
    run, plain = (run_of(tiny_bundle, 1, "ddim", 7, named) for named in (settings, {}))
    assert (run.solver, run.steps) == (solver, steps)
    assert run.layout_strength == plain.layout_strength == 1
    assert run.requests.guidance == settings.get("guidance", plain.requests.guidance)


def test_a_variant_of_a_quality_has_its_defaults(tiny_bundle: Bundle):
    run = run_of(tiny_bundle, 1, "ddim", 7, {"quality": "best"})
    defaults = tiny_bundle.defaults
    assert (run.solver, run.steps) == (defaults.solver, defaults.steps)
    assert run.layout_strength < 1
