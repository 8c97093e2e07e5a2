"""Measurements are interleaved and come from fresh processes."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import numpy as np
import pytest

from synfer_rt.bench import measure
from synfer_rt.bench.systems import Case, Setup, Stopwatch
from synfer_rt.data.writers import open_output, read
from synfer_rt.errors import UserError
from tests.data.writers.small_run import SmallRun

OURS, PEER = Case("synfer-rt", 4), Case("diffusers", 4)


def die(setup: Setup, case: Case) -> None:
    os._exit(9)


def test_visits_go_round_all_cases_before_any_comes_again():
    assert measure.interleaved([OURS, PEER], 2) == [(0, OURS), (0, PEER), (1, OURS), (1, PEER)]


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


def test_a_killed_process_is_an_error_with_a_remedy(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(measure, "visit", die)
    setup = Setup(Path("."), "ddim", 1, "onnxruntime-cpu", 1, None)
    with pytest.raises(UserError, match="leave that size out of `batch`"):
        measure.measure(setup, [OURS], 1, lambda *_: None)
