"""`synfer_rt.bench.bench`: the benchmark with plain arguments."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from synfer_rt.bench import bench, measure, results, settings
from synfer_rt.bench.systems import Case
from synfer_rt.bundle import Bundle
from synfer_rt.errors import UserError


def test_the_result_is_returned_shown_and_written(tiny_bundle_path: Path, tmp_path: Path):
    file, page = tmp_path / "bench.json", tmp_path / "bench.md"
    shown: list[Any] = []
    result = bench(
        tiny_bundle_path,
        **{"batch": [2], "steps": 1, "repeats": 1, "threads": 1, "backend": "onnxruntime-cpu"},
        **{"json": file, "markdown": page, "show": shown.append},
    )
    assert shown == [result] == [json.loads(file.read_text())]
    assert [entry["batch"] for entry in result["summary"]] == [2]
    assert (result["format"], result["failed"], result["left_out"]) == (3, [], [])
    assert result["peak"]["flops_per_second"] > result["summary"][0]["flops_per_second"] > 0
    assert result["settings"]["command"] in page.read_text()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"batch": []}, "`batch` must name at least one size"),
        ({"batch": [0]}, "`batch` must be at least 1, got 0"),
        ({"compare": ["difusers"]}, "the nearest is diffusers"),
        ({"seconds": 0}, "`seconds` must be from 1 to"),
        ({"checkpoint": "."}, 'add `compare="diffusers"`'),
    ],
)
def test_what_cannot_be_measured_is_refused(
    tiny_bundle_path: Path, arguments: dict[str, Any], message: str
):
    with pytest.raises(UserError) as error:
        bench(tiny_bundle_path, **arguments)
    assert message in str(error.value)


def test_peers_load_the_bundle_unpacked_unless_a_checkpoint_is_given(
    mini_bundle: Bundle, mini_checkpoint: Path, tmp_path: Path
):
    folder = tmp_path / "folder"
    unpacked = settings.checkpoint_of(mini_bundle, None, ("diffusers",), folder)
    assert unpacked is not None and unpacked.parent == folder
    assert (unpacked / "model_index.json").is_file()
    given = settings.checkpoint_of(mini_bundle, mini_checkpoint, ("diffusers",), folder)
    assert given == mini_checkpoint
    with pytest.raises(UserError, match=r"is no checkpoint; give the directory that mini was"):
        settings.checkpoint_of(mini_bundle, folder, ("diffusers",), folder)


def test_a_bundle_that_cannot_be_unpacked_needs_its_checkpoint(tiny_bundle: Bundle, tmp_path: Path):
    with pytest.raises(UserError, match=r"cannot be unpacked.* Or give its checkpoint as"):
        settings.checkpoint_of(tiny_bundle, None, ("diffusers",), tmp_path)


def test_an_old_report_stays_where_the_new_one_cannot_be_written(tmp_path: Path) -> None:
    file = tmp_path / "bench.json"
    file.write_text("last week's")
    (tmp_path / "bench.json.partial").mkdir()
    with pytest.raises(UserError, match="give `json` another file"):
        results.write("json", file, "this week's")
    assert file.read_text() == "last week's"


def settled(folder: Path, **arguments: Any) -> settings.Settled:
    names = ("batch", "steps", "solver", "threads", "repeats", "compare", "checkpoint", "seconds")
    defaults: dict[str, Any] = {**dict.fromkeys(names), "backend": "onnxruntime-cpu"}
    return settings.settle(
        settings.Given(**{**defaults, **arguments}), lambda sentence: None, folder
    )


def test_a_quick_benchmark_is_a_page_in_less_than_five_minutes(
    mini_bundle: Bundle, mini_checkpoint: Path, tmp_path: Path
):
    found = settled(tmp_path, bundle=mini_bundle.path, quick=True, checkpoint=mini_checkpoint)
    assert found.seconds is not None and found.seconds < 300
    assert found.cases == (Case("synfer-rt", (1, 16)), Case("diffusers", (1, 16)))
    assert found.setup.checkpoint == mini_checkpoint


def test_a_benchmark_visits_each_size_in_a_process_of_its_own(
    tiny_bundle_path: Path, tmp_path: Path
):
    found = settled(tmp_path, bundle=tiny_bundle_path, quick=False, batch=[1, 8])
    assert found.cases == (Case("synfer-rt", (1,)), Case("synfer-rt", (8,)))
    assert (found.seconds, found.repeats, found.peers) == (None, 3, ())


def test_a_quick_benchmark_says_which_peers_it_lacks(
    tiny_bundle_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("synfer_rt.bench.peers.PACKAGES", ("torch", "no_such_package"))
    found = settled(tmp_path, bundle=tiny_bundle_path, quick=True)
    assert found.cases == (Case("synfer-rt", (1, 16)),)
    (left_out,) = found.left_out
    assert left_out["section"] == "diffusers"
    assert "needs no_such_package; run `pip install '.[export]'`" in left_out["why"]
    with pytest.raises(UserError, match="needs no_such_package"):
        settled(tmp_path, bundle=tiny_bundle_path, quick=True, compare=["diffusers"])


def test_a_solver_that_adds_noise_is_not_compared_with_peers(
    tiny_bundle_path: Path, tmp_path: Path
):
    found = settled(tmp_path, bundle=tiny_bundle_path, quick=True, solver="lcm", steps=4)
    assert found.cases == (Case("synfer-rt", (1, 16)),)
    assert "lcm adds fresh noise" in found.left_out[0]["why"]
    with pytest.raises(UserError, match=r"lcm adds fresh noise.*leave out `compare`"):
        settled(tmp_path, bundle=tiny_bundle_path, quick=False, solver="lcm", compare=["diffusers"])


def test_a_benchmark_that_measured_nothing_says_why(
    tiny_bundle_path: Path, monkeypatch: pytest.MonkeyPatch
):
    failed = measure.Measured(failed=[{"section": "synfer-rt, batch 9", "why": "it was killed"}])
    monkeypatch.setattr(measure, "measure", lambda *_: failed)
    with pytest.raises(UserError, match=r"synfer-rt, batch 9 failed: it was killed\."):
        bench(tiny_bundle_path, backend="onnxruntime-cpu")
    monkeypatch.setattr(measure, "measure", lambda *_: measure.Measured())
    with pytest.raises(UserError, match="the time was up; give more `seconds`"):
        bench(tiny_bundle_path, backend="onnxruntime-cpu")
