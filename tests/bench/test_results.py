"""A benchmark that is interrupted keeps what it has, and goes on with it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from synfer_rt.bench import bench, measure, results, sections
from synfer_rt.bench.results import Kept
from synfer_rt.errors import UserError
from tests.bench.test_cli import VISITS

ARGUMENTS: dict[str, Any] = {
    **{"batch": [2], "steps": 1, "repeats": 2, "threads": 1, "backend": "onnxruntime-cpu"},
}


class Interrupted:
    """In place of sections.run: visits that end in an interruption after so many sections."""

    def __init__(self, sections_before: int) -> None:
        self.left, self.ran = sections_before, list[str]()

    def __call__(self, section: Any, setup: Any, *case: Any, seconds: Any) -> sections.Outcome:
        if not self.left:
            raise KeyboardInterrupt
        self.left -= 1
        self.ran.append(section.__name__)
        if not case:
            value = {"flops_per_second": 1e12, "dtype": "float32", "side": 8, "runtime": "r"}
            peak = {**value, "clock": "c"}
            return sections.Outcome([("peak", peak) if section is measure.peak else ("flops", {})])
        return sections.Outcome([(VISITS[0], np.full((2, 4, 4, 3), 7, np.uint8))])


def test_an_interrupted_run_goes_on_where_it_was(
    tiny_bundle_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    file = tmp_path / "bench.json"
    first = Interrupted(2)
    monkeypatch.setattr(measure.sections, "run", first)
    with pytest.raises(KeyboardInterrupt):
        bench(tiny_bundle_path, json=file, **ARGUMENTS)
    kept = json.loads(file.read_text())
    assert first.ran == ["visit", "peak"] and len(kept["visits"]) == 1
    assert kept["peak"]["flops_per_second"] == 1e12 and len(kept["images"]["synfer-rt"]) == 2
    second = Interrupted(9)
    monkeypatch.setattr(measure.sections, "run", second)
    result = bench(tiny_bundle_path, json=file, resume=True, **ARGUMENTS)
    assert second.ran == ["operations", "visit"]
    assert [visit["repeat"] for visit in result["visits"]] == [0, 1]
    assert "images" not in json.loads(file.read_text())
    third = Interrupted(0)
    monkeypatch.setattr(measure.sections, "run", third)
    assert (
        bench(tiny_bundle_path, json=file, resume=True, **ARGUMENTS)["visits"] == result["visits"]
    )


def test_another_run_is_not_gone_on_with(
    tiny_bundle_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    file = tmp_path / "bench.json"
    monkeypatch.setattr(measure.sections, "run", Interrupted(9))
    bench(tiny_bundle_path, json=file, **ARGUMENTS)
    with pytest.raises(UserError, match="was begun with another steps; give the same settings"):
        bench(tiny_bundle_path, json=file, resume=True, **{**ARGUMENTS, "steps": 2})
    file.write_text("{}")
    with pytest.raises(UserError, match="is no result of `bench`"):
        bench(tiny_bundle_path, json=file, resume=True, **ARGUMENTS)
    with pytest.raises(UserError, match="`resume` goes on with the file `json`"):
        bench(tiny_bundle_path, resume=True, **ARGUMENTS)


def test_kept_images_come_back_as_they_were():
    images = np.random.default_rng(0).integers(0, 256, (3, 8, 8, 3)).astype(np.uint8)
    assert np.array_equal(results._decoded(results._encoded(images)), images)
    assert len(results._decoded([])) == 0
    assert Kept(None, False, "").file is None
