"""Measurements are interleaved and come from fresh processes."""

from __future__ import annotations

import logging
import tempfile
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from synfer_rt.bench import measure
from synfer_rt.bench.gpu_monitor import Nvml, Usage
from synfer_rt.bench.sections import Outcome
from synfer_rt.bench.systems import Case, Setup, Stopwatch, System
from synfer_rt.data.writers import open_output, read
from tests.bench.fake_nvml import Card, FakeNvml
from tests.data.writers.small_run import SmallRun

OURS, PEER = Case("synfer-rt", (4, 8)), Case("diffusers", (4,))
SETUP = Setup(Path("."), "ddim", 4, "onnxruntime-cpu", 1, None)


def test_visits_go_round_all_cases_before_any_comes_again():
    assert measure.interleaved([OURS, PEER], 2) == [(0, OURS), (0, PEER), (1, OURS), (1, PEER)]


class Writing(System):
    """A system that writes the small run as synfer-rt writes one, and takes `seconds` a batch."""

    def __init__(self, seconds: float = 0.0) -> None:
        self.ran: Mapping[str, str] = {"precision": "fp32"}
        self.seconds = seconds
        self.asked: list[tuple[int, int, int]] = []

    def run(self, batch: int, batches: int, steps: int, watch: Stopwatch, out: Path) -> None:
        self.asked.append((batch, batches, steps))
        time.sleep(self.seconds * batches)
        logging.getLogger("synfer_rt.backends").info("said once")
        run = SmallRun()
        writer = open_output(out, run.settings("imagefolder", 4), resume=False)
        run.write(writer, 4)
        writer.finish()
        watch.device, watch.clock = 0.5, "a clock"

    def images(self, out: Path) -> np.ndarray:
        return np.stack([np.frombuffer(png[:8], np.uint8) for _, png in read(out)])


def test_a_measured_run_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(measure, "ON_CPU", 0.0)
    _, images = measure._measured(Writing(), SETUP, 4, None)
    assert len(images) == 4 and not list(tmp_path.iterdir())


def test_short_batches_warm_up_and_then_run_in_numbers(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(measure, "ON_CPU", 0.6)
    system = Writing(0.1)
    found, _ = measure._measured(system, SETUP, 4, None)
    warm_up, first, *runs = system.asked
    assert warm_up == (4, 1, measure.WARM_UP_STEPS) and first == (4, 1, 4)
    assert [(batch, steps) for batch, _, steps in runs] == [(4, 4)] * measure.RUNS
    assert [run["batches"] for run in found["runs"]] == [batches for _, batches, _ in runs]
    assert {batches for _, batches, _ in runs} <= {1, 2}  # 0.2 s a run, of 0.1 s and more a batch
    assert found["warm_up_seconds"] >= 0.2
    assert found["runs"][0]["device_seconds"] == 0.5


def test_a_batch_that_takes_long_is_the_measurement(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(measure, "ON_CPU", 0.1)
    system = Writing(0.15)
    found, _ = measure._measured(system, SETUP, 4, None)
    assert system.asked == [(4, 1, measure.WARM_UP_STEPS), (4, 1, 4)]
    assert len(found["runs"]) == 1


def test_what_a_gpu_did_is_told_for_each_image(monkeypatch: pytest.MonkeyPatch):
    usage = Usage(2.0, 0.9, 7 * 2**30, 400.0, 800.0, "NVML")
    assert measure._gpu(usage, 2**30, [{"batches": 2}, {"batches": 3}], 16) == {
        **{"busy": 0.9, "memory_bytes": 6 * 2**30, "watts": 400.0, "source": "NVML"},
        "joules_per_image": 10.0,
    }
    untold = Usage(2.0, None, None, None, None, "NVML")
    assert measure._gpu(untold, 0, [{"batches": 1}], 1)["joules_per_image"] is None


def test_a_gpu_is_watched_in_the_runs_of_a_visit(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(measure, "_load", lambda setup, case: Writing())
    monkeypatch.setattr(measure, "_ON_GPU", 0.0)
    card = Card(percent=[80], used=[1 * 2**30, 3 * 2**30], millijoules=[1000, 9000])
    monkeypatch.setattr(measure, "open_meter", lambda: Nvml(FakeNvml(card), "0"))
    gpu = replace(SETUP, backend="onnxruntime-cuda")
    ((record, _),) = measure.visit(gpu, PEER)
    assert record["gpu"]["memory_bytes"] == 2 * 2**30
    assert record["gpu"]["joules_per_image"] == 2.0  # 8 joules for 4 images
    assert record["gpu"]["busy"] == pytest.approx(0.8)
    assert record["notes"] == ["said once"]
    ((record, _),) = measure.visit(gpu, Case("onnxruntime-cpu", (4,)))
    assert record["gpu"] is None


class Sections:
    """In place of sections.run: what each section gives, and what was run."""

    def __init__(self, **outcomes: Outcome) -> None:
        self.outcomes, self.ran = outcomes, list[str]()
        self.seconds: dict[str, float | None] = {}

    def __call__(self, section: Any, setup: Setup, *case: Case, seconds: float | None) -> Outcome:
        name = case[0].system if case else section.__name__
        self.seconds[name] = seconds
        self.ran.append(name)
        return self.outcomes.get(name.replace("-", "_"), Outcome())


def measured(
    monkeypatch: pytest.MonkeyPatch, ran: Sections, seconds: float | None = None
) -> measure.Measured:
    monkeypatch.setattr(measure.sections, "run", ran)
    return measure.measure(SETUP, [OURS, PEER], 2, lambda *_: None, seconds)


ROW = ({"system": "synfer-rt", "batch": 4}, np.zeros((4, 2, 2, 3), np.uint8))


def test_a_section_that_fails_keeps_its_rows_and_ends_no_other(monkeypatch: pytest.MonkeyPatch):
    ran = Sections(synfer_rt=Outcome([ROW], "memory ran out"), peak=Outcome([("peak", 5)]))
    found = measured(monkeypatch, ran)
    assert ran.ran == ["synfer-rt", "peak", "operations", "diffusers", "diffusers"]
    assert [visit["batch"] for visit in found.visits] == [4] and len(found.images["synfer-rt"]) == 4
    assert found.failed == [{"section": "synfer-rt, batch 8", "why": "memory ran out"}]
    assert (found.peak, found.flops) == (5, None)


def test_a_section_that_the_time_ends_is_left_out(monkeypatch: pytest.MonkeyPatch):
    stopped = Outcome([], "it was stopped after 9 s", 9.0, stopped=True)
    found = measured(monkeypatch, Sections(diffusers=stopped), 100)
    assert found.failed == []
    (left_out,) = found.left_out
    assert left_out["section"] == "diffusers, batch 4" and "stopped after 9 s" in left_out["why"]


def test_what_no_time_is_left_for_is_left_out_once(monkeypatch: pytest.MonkeyPatch):
    ran = Sections()
    found = measured(monkeypatch, ran, 5)  # less than a first visit needs
    assert ran.ran == []
    assert [entry["section"] for entry in found.left_out] == [
        *("synfer-rt, batch 4, 8", "the peak", "FLOPs", "diffusers, batch 4")
    ]


def test_a_round_that_would_take_too_long_is_not_begun(monkeypatch: pytest.MonkeyPatch):
    ran = Sections(synfer_rt=Outcome([ROW], seconds=60.0), diffusers=Outcome(seconds=1.0))
    found = measured(monkeypatch, ran, 30)
    assert ran.ran == ["synfer-rt", "peak", "operations", "diffusers", "diffusers"]
    assert found.left_out == []


def test_counting_takes_a_minute_at_most_where_time_is_limited(monkeypatch: pytest.MonkeyPatch):
    ran = Sections()
    measured(monkeypatch, ran, 1000)
    assert ran.seconds["operations"] == ran.seconds["peak"] == 60
    assert 990 < (ran.seconds["synfer-rt"] or 0) <= 1000
    measured(monkeypatch, ran, None)
    assert set(ran.seconds.values()) == {None}
