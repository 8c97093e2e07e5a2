"""Visits are summarised without loss, and systems compared on what all of them do."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from synfer_rt.bench import summary
from synfer_rt.bench.systems import STAGES, Case

OURS, PEER = Case("synfer-rt", 4), Case("diffusers", 4)


def visit(case: Case, *totals: float) -> dict[str, Any]:
    """A visit whose runs spend half their time in denoise, a quarter each in decode and write."""
    parts = {"denoise": 0.5, "decode": 0.25, "write": 0.25}
    runs = [
        {
            "total": total,
            "stages": {stage: total * parts.get(stage, 0.0) for stage in STAGES},
            "engines": {"denoiser": total * 0.4} if case.system == "synfer-rt" else {},
        }
        for total in totals
    ]
    return {
        "system": case.system,
        "batch": case.batch,
        "load_seconds": 1.0,
        "warm_up_seconds": 1.0,
        "runs": runs,
        "peak_rss_bytes": int(1e6 * len(totals)),
        "gpu_bytes": None,
    }


def test_a_summary_is_over_visits_whatever_number_of_runs_they_had():
    visits = [visit(OURS, 1.0, 2.0, 2.0, 2.0), visit(OURS, 8.0)]
    (entry,) = summary.summarise(visits)
    assert entry["runs"] == 5
    assert entry["seconds"] == {"median": 5.0, "min": 1.0, "max": 8.0}
    assert entry["images_per_second"] == {"median": 1.25, "min": 0.5, "max": 4.0}
    assert entry["peak_rss_bytes"] == 4e6
    assert entry["engine_share"]["median"] == pytest.approx(0.4)


def test_writing_is_no_part_of_the_model():
    (entry,) = summary.summarise([visit(OURS, 1.0)])
    assert entry["model_images_per_second"]["median"] == pytest.approx(4 / 0.75)


def test_a_speedup_is_the_ratio_of_medians():
    entries = summary.summarise([visit(OURS, 1.0), visit(PEER, 3.0), visit(OURS, 1.0)])
    assert summary.speedups(entries) == [
        {"peer": "diffusers", "batch": 4, "ratio": pytest.approx(3.0)}
    ]


def test_other_images_are_told_from_the_same():
    images = np.full((2, 4, 4, 3), 10, np.uint8)
    other = images.copy()
    other[0, 0, 0, 0] = 255
    (same,) = summary.differences({"synfer-rt": images, "diffusers": images})
    (different,) = summary.differences({"synfer-rt": images, "diffusers": other})
    assert (same["mean"], same["max"]) == (0, 0)
    assert (different["mean"], different["max"]) == (pytest.approx(245 / 96), 245)
