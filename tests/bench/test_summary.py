"""Visits are summarised without loss, and systems compared on what all of them do."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from synfer_rt.bench import summary
from synfer_rt.bench.systems import STAGES

OURS, PEER = "synfer-rt", "diffusers"


def visit(system: str, *totals: float, batches: int = 1, busy: float | None = None) -> Any:
    """A visit at batch 4; runs spend half their time in denoise, a quarter in decode and write.

    With `busy`, on a GPU.
    """
    parts = {"denoise": 0.5, "decode": 0.25, "write": 0.25}
    runs = [
        {
            "batches": batches,
            "total": total,
            "stages": {stage: total * parts.get(stage, 0.0) for stage in STAGES},
            "engines": {"denoiser": total * 0.4} if system == OURS else {},
            "calls": {"conditioner": 1, "denoiser": 7, "decoder": 1},
            "device_seconds": None if busy is None else total / 2,
            "device_clock": None if busy is None else "CUDA events",
        }
        for total in totals
    ]
    return {
        "system": system,
        "settings": {} if system == OURS else None,
        "flops": None,
        "batch": 4,
        "ran": {"precision": "fp16"},
        "notes": ["slow"] if len(totals) == 1 else ["odd", "slow"],
        "load_seconds": 1.0,
        "warm_up_seconds": 1.0,
        "runs": runs,
        "peak_rss_bytes": int(1e6 * len(totals)),
        "gpu": (
            None
            if busy is None
            else {
                **{"busy": busy, "memory_bytes": int(1e9 * busy), "source": "NVML"},
                **{"watts": None, "joules_per_image": 2 * busy},
            }
        ),
    }


def test_a_summary_is_over_visits_whatever_number_of_runs_they_had():
    visits = [visit(OURS, 1.0, 2.0, 2.0, 2.0), visit(OURS, 8.0)]
    (entry,) = summary.summarise(visits)
    assert entry["runs"] == 5
    assert entry["seconds"] == {"median": 5.0, "min": 1.0, "max": 8.0}
    assert entry["images_per_second"] == {"median": 1.25, "min": 0.5, "max": 4.0}
    assert entry["peak_rss_bytes"] == 4e6
    assert entry["engine_share"]["median"] == pytest.approx(0.4)
    assert entry["notes"] == ["odd", "slow"]


def test_writing_is_no_part_of_the_model():
    (entry,) = summary.summarise([visit(OURS, 1.0)])
    assert entry["model_images_per_second"]["median"] == pytest.approx(4 / 0.75)


def test_a_speedup_is_the_ratio_of_medians():
    entries = summary.summarise([visit(OURS, 1.0), visit(PEER, 3.0), visit(OURS, 1.0)])
    assert summary.speedups(entries) == [
        {
            **{"system": OURS, "peer": PEER, "batch": 4},
            **{"whole": pytest.approx(3.0), "model": pytest.approx(3.0)},
        }
    ]


def test_each_setting_of_synfer_rt_is_held_against_each_peer():
    fast = {**visit("synfer-rt fast", 0.5), "settings": {"quality": "fast"}}
    entries = summary.summarise([visit(OURS, 1.0), fast, visit(PEER, 3.0)])
    found = {(e["system"], e["peer"]): e["whole"] for e in summary.speedups(entries)}
    assert found == {(OURS, PEER): pytest.approx(3.0), ("synfer-rt fast", PEER): pytest.approx(6.0)}


def test_a_system_that_does_not_tell_its_stages_has_no_speed_of_the_model():
    release = visit("synfer-rt 0.1.0 (old)", 2.0)
    release["runs"][0]["stages"] = dict.fromkeys(STAGES, 0.0)
    release["flops"] = {"conditioner": 0, "denoiser": 10**9, "decoder": 10**9}
    own, other = summary.summarise([visit(OURS, 1.0), release], {"conditioner": 1})
    assert own["flops"] is None and other["model_images_per_second"] is None
    assert other["flops_per_second"] == pytest.approx(8e9 * 4 / 2.0)
    (speedup,) = summary.speedups([own, other])
    assert (speedup["whole"], speedup["model"]) == (pytest.approx(2.0), None)


def test_a_peer_without_a_rival_at_its_size_has_no_speedup():
    assert summary.speedups(summary.summarise([visit(PEER, 3.0)])) == []


def test_a_run_of_many_batches_counts_for_each_of_them():
    (entry,) = summary.summarise([visit(OURS, 5.0, batches=10)])
    assert entry["seconds"]["median"] == pytest.approx(0.5)
    assert entry["stages"]["denoise"]["median"] == pytest.approx(0.25)
    assert entry["images_per_second"]["median"] == pytest.approx(8.0)
    assert (entry["runs"], entry["batches"]) == (1, 10)


def test_flops_are_those_of_the_stages_that_are_timed():
    flops = {"conditioner": 10**9, "denoiser": 2 * 10**9, "decoder": 10**9, "feranno": 50 * 10**9}
    (entry,) = summary.summarise([visit(OURS, 1.0)], flops)
    assert entry["flops_per_second"] == pytest.approx(16e9 * 4 / 0.75)
    assert summary.summarise([visit(OURS, 1.0)])[0]["flops_per_second"] is None


def test_what_a_gpu_did_is_the_median_of_its_visits():
    visits = [visit(OURS, 2.0, batches=2, busy=busy) for busy in (0.5, 0.75, 1.0)]
    (entry,) = summary.summarise(visits)
    assert entry["gpu"] == {
        **{"busy": 0.75, "watts": None, "joules_per_image": 1.5, "source": "NVML"},
        "memory_bytes": 1e9,
    }
    assert entry["device"]["clock"] == "CUDA events"
    assert entry["device"]["median"] == pytest.approx(0.5)
    assert summary.summarise([visit(OURS, 1.0)])[0]["gpu"] is None


def test_other_images_are_told_from_the_same():
    images = np.full((2, 4, 4, 3), 10, np.uint8)
    other = images.copy()
    other[0, 0, 0, 0] = 255
    (same,) = summary.differences({"synfer-rt": images, "diffusers": images})
    fewer = summary.differences({"synfer-rt": images, "diffusers": images[:1]})
    assert fewer[0]["images"] == 1
    assert summary.differences({"diffusers": images}) == []
    (different,) = summary.differences({"synfer-rt": images, "diffusers": other})
    assert (same["mean"], same["max"]) == (0, 0)
    assert (different["mean"], different["max"]) == (pytest.approx(245 / 96), 245)
