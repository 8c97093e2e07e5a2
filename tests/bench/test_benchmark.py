"""`synfer_rt.bench.bench`: the benchmark with plain arguments."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from synfer_rt.bench import bench, benchmark
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
    assert result["settings"]["command"] in page.read_text()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"batch": []}, "`batch` must name at least one size"),
        ({"batch": [0]}, "`batch` must be a whole number of at least 1, got 0"),
        ({"compare": ["difusers"]}, "the nearest is diffusers"),
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
    unpacked = benchmark._checkpoint(mini_bundle, None, ("diffusers",), folder)
    assert unpacked is not None and unpacked.parent == folder
    assert (unpacked / "model_index.json").is_file()
    given = benchmark._checkpoint(mini_bundle, mini_checkpoint, ("diffusers",), folder)
    assert given == mini_checkpoint
    with pytest.raises(UserError, match=r"is no checkpoint; give the directory that mini was"):
        benchmark._checkpoint(mini_bundle, folder, ("diffusers",), folder)


def test_a_bundle_that_cannot_be_unpacked_needs_its_checkpoint(tiny_bundle: Bundle, tmp_path: Path):
    with pytest.raises(UserError, match=r"cannot be unpacked.* Or give its checkpoint as"):
        benchmark._checkpoint(tiny_bundle, None, ("diffusers",), tmp_path)


def test_an_old_report_stays_where_the_new_one_cannot_be_written(tmp_path: Path) -> None:
    file = tmp_path / "bench.json"
    file.write_text("last week's")
    (tmp_path / "bench.json.partial").mkdir()
    with pytest.raises(UserError, match="give `json` another file"):
        benchmark._write("json", file, "this week's")
    assert file.read_text() == "last week's"
