"""Measurements are interleaved, come from fresh processes and are summarised without loss."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from synfer_rt.bench import machine, measure
from synfer_rt.bench.measure import Case, Setup, Stopwatch
from synfer_rt.data.writers import open_output, read
from synfer_rt.errors import UserError
from tests.data.writers.small_run import SmallRun

OURS, PEER = Case("synfer-rt", 4), Case("diffusers", 4)


def visit(case: Case, *totals: float) -> dict[str, Any]:
    """A visit whose runs spend half their time in denoise, a quarter each in decode and write."""
    parts = {"denoise": 0.5, "decode": 0.25, "write": 0.25}
    runs = [
        {
            "total": total,
            "stages": {stage: total * parts.get(stage, 0.0) for stage in measure.STAGES},
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


def die(setup: Setup, case: Case) -> None:
    os._exit(9)


def test_visits_go_round_all_cases_before_any_comes_again():
    assert measure.interleaved([OURS, PEER], 2) == [(0, OURS), (0, PEER), (1, OURS), (1, PEER)]


def test_a_stopwatch_adds_up_what_a_stage_took():
    watch = Stopwatch()
    for _ in range(2):
        with watch.stage("denoise"):
            time.sleep(0.02)
    assert 0.04 <= watch.stages["denoise"] < 1


class Writing:
    """A system that writes the small run as synfer-rt writes one."""

    def run(self, batch: int, steps: int, watch: Stopwatch, out: Path) -> None:
        run = SmallRun()
        writer = open_output(out, run.settings("imagefolder", batch), resume=False)
        run.write(writer, batch)
        writer.finish()

    def images(self, out: Path) -> np.ndarray:
        return np.stack([np.frombuffer(png[:8], np.uint8) for _, png in read(out)])


def test_a_measured_run_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    _, images = measure._run(Writing(), 4, 1)
    assert len(images) == 4 and not list(tmp_path.iterdir())


def test_a_summary_is_over_visits_whatever_number_of_runs_they_had():
    visits = [visit(OURS, 1.0, 2.0, 2.0, 2.0), visit(OURS, 8.0)]
    (entry,) = measure.summarise(visits)
    assert entry["runs"] == 5
    assert entry["seconds"] == {"median": 5.0, "min": 1.0, "max": 8.0}
    assert entry["images_per_second"] == {"median": 1.25, "min": 0.5, "max": 4.0}
    assert entry["peak_rss_bytes"] == 4e6
    assert entry["engine_share"]["median"] == pytest.approx(0.4)


def test_writing_is_no_part_of_the_model():
    (entry,) = measure.summarise([visit(OURS, 1.0)])
    assert entry["model_images_per_second"]["median"] == pytest.approx(4 / 0.75)


def test_a_speedup_is_the_ratio_of_medians():
    summary = measure.summarise([visit(OURS, 1.0), visit(PEER, 3.0), visit(OURS, 1.0)])
    assert measure.speedups(summary) == [
        {"peer": "diffusers", "batch": 4, "ratio": pytest.approx(3.0)}
    ]


def test_other_images_are_told_from_the_same():
    images = np.full((2, 4, 4, 3), 10, np.uint8)
    other = images.copy()
    other[0, 0, 0, 0] = 255
    (same,) = measure.differences({"synfer-rt": images, "diffusers": images})
    (different,) = measure.differences({"synfer-rt": images, "diffusers": other})
    assert (same["mean"], same["max"]) == (0, 0)
    assert (different["mean"], different["max"]) == (pytest.approx(245 / 96), 245)


def test_a_killed_process_is_an_error_with_a_remedy(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(measure, "visit", die)
    setup = Setup(Path("."), "ddim", 1, "onnxruntime-cpu", 1, None)
    with pytest.raises(UserError, match="leave that size out of --batch"):
        measure.measure(setup, [OURS], 1, lambda *_: None)


def test_peak_memory_counts_what_was_freed():
    code = (
        "import numpy as np\n"
        "from synfer_rt.bench.machine import peak_rss_bytes\n"
        "before = peak_rss_bytes()\n"
        "big = np.ones(2**25)\n"  # 256 MiB
        "del big\n"
        "print(peak_rss_bytes() - before)\n"
    )
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert 0.9 * 2**28 < int(said.stdout) < 2**29


def test_the_machine_tells_its_cores_and_only_installed_versions():
    about = machine.describe(3, ["numpy", "no-such-package"])
    assert about["versions"] == {"numpy": np.__version__}
    assert about["threads"] == 3
    assert about["cores"] >= 1
    assert about["cpu"]
