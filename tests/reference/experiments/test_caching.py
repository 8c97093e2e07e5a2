"""The page of feature caching."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

pytest.importorskip("torch", reason="the experiments need synfer-rt[reference]")

from reference.experiments import caching
from reference.experiments.caching import Way
from reference.experiments.setting import Setting
from synfer_rt.bundle import open_bundle

pytestmark = pytest.mark.slow


def test_whole_steps_come_first_then_each_depth() -> None:
    found = caching.ways(4, (1, 3))
    assert found[:3] == [Way(4), Way(3), Way(2)]
    assert found[3:] == [Way(4, depth, every) for depth in (1, 3) for every in caching.EVERY]
    bundle = open_bundle()
    reused = Way(4, 1, 3).trajectory(bundle).reused.tolist()
    assert reused == [False, True, True, False] and not Way(4).trajectory(bundle).reused.any()


def test_every_row_is_timed_and_judged(
    student_options: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The shipped bundle has no engines that cache, so its rows are those of whole steps."""
    monkeypatch.setattr(caching, "EVERY", (2,))
    monkeypatch.setattr(caching, "FEWER", (1,))
    monkeypatch.setattr(caching, "sampler_of", lambda setting, depth: setting.sampler)
    monkeypatch.setattr(caching, "with_cached_features", lambda way, every: way)
    options = [*student_options, "--depth", "3", "--repeats", "1"]
    result = CliRunner().invoke(caching.main, options, catch_exceptions=False)
    assert result.exit_code == 0
    rows = json.loads((tmp_path / "out" / "caching.json").read_text())["rows"]
    assert [(row["steps"], row["depth"], row["every"]) for row in rows] == [
        (2, None, 1),
        (1, None, 1),
        (2, 3, 2),
    ]
    assert all(row["seconds"] > 0 for row in rows)
    apart = [row["image difference"][0] for row in rows]
    assert apart[0] == apart[2] == 0 and apart[1] > 1
    text = (tmp_path / "out" / "caching.md").read_text()
    assert "| 2 whole steps |  |" in text and "| 2 steps, depth 3 | 2 |" in text


def test_engines_are_built_from_the_bundles_own_checkpoint(
    student_options: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    built: list[dict[str, Any]] = []

    def build(checkpoint: Path, out: Path, **options: Any) -> None:
        assert (checkpoint / "unet").is_dir() and not (checkpoint / "annotator").exists()
        assert not (checkpoint / "classifiers").exists()
        built.append(options)
        out.mkdir()

    monkeypatch.setattr(caching, "build_engines", build)
    monkeypatch.setattr(caching, "open_bundle", lambda path: Setting.bundle)
    place, work = tmp_path / "networks", tmp_path / "work"
    setting = Setting(None, place, place, tmp_path / "out", work, "onnxruntime-cpu", 1)
    for _ in range(2):
        caching.sampler_of(setting, 3)
    assert built == [{"precision": "fp16", "cache_depth": 3}]
    assert caching.sampler_of(setting, None) is setting.sampler
