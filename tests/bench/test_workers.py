"""What runs in the environments of peers: requests and answers, and another release."""

from __future__ import annotations

import io
import json
import sys
from dataclasses import make_dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import synfer_rt
from synfer_rt.bench.workers import release, serve
from synfer_rt.bundle import Bundle
from synfer_rt.engines import default_bundle


class Echo:
    """What a module of bench/workers loads."""

    ran, notes, kind = {"runtime": "r"}, ["n"], "k"

    def double(self, value: int) -> int:
        if value < 0:
            raise ValueError("no negative values.\nTraceback …")
        return 2 * value


def test_requests_are_answered_in_turn_and_a_problem_ends_none():
    module = SimpleNamespace(load=lambda **given: Echo(), TELLS=("kind",))
    asked = [("load", {"any": 1}), ("double", {"value": 4}), ("double", {"value": -1})]
    lines = [json.dumps({"do": do, "with": given}) for do, given in [*asked, asked[1]]]
    answers = io.StringIO()
    serve.serve(module, io.StringIO("\n".join(lines)), answers)
    told = [json.loads(line) for line in answers.getvalue().splitlines()]
    assert told[0]["is"] == {"ran": {"runtime": "r"}, "notes": ["n"], "kind": "k"}
    assert [answer.get("is") for answer in told[1:]] == [8, None, 8]
    assert told[2] == {"problem": "ValueError: no negative values"}


def test_a_release_is_called_from_python_where_it_can_be(
    monkeypatch: pytest.MonkeyPatch, tiny_bundle: Bundle, tmp_path: Path
):
    model = synfer_rt.load(tiny_bundle.path, backend="onnxruntime-cpu", threads=1)
    monkeypatch.setattr(synfer_rt, "load", lambda threads: model)
    made = release.load(("synfer-rt", "no-such-package"), threads=1)
    assert made.ran["runtime"] == f"synfer-rt {synfer_rt.__version__}"
    told = made.run(count=4, batch=2, out=str(tmp_path))
    assert set(told["stages"]) >= {"condition", "denoise", "decode"}
    assert 0 < sum(told["stages"].values()) <= told["total"]
    assert len(list((tmp_path / "run").rglob("*.png"))) == 4


def test_an_older_release_is_timed_by_the_batches_after_the_first(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    clock, asked = [0.0], list[Any]()

    def main(words: list[str], standalone_mode: bool) -> None:
        assert not standalone_mode
        given = dict(zip(words[1::2], words[2::2], strict=True))
        asked.append((int(given["--count"]), int(given["--batch"])))
        Path(given["--out"]).mkdir()
        clock[0] += 5.0 + 0.25 * int(given["--count"])  # loading, then each image

    command = make_dataclass("Command", ["load"])(lambda: main)
    monkeypatch.setattr(release, "entry_points", lambda **_: [command])
    monkeypatch.setattr(release, "time", SimpleNamespace(perf_counter=lambda: clock[0]))
    monkeypatch.setitem(sys.modules, "synfer_rt", SimpleNamespace())  # no `load`
    made = release.load((), threads=1)
    assert made.run(count=8, batch=4, out=str(tmp_path)) == {"total": 2.0, "stages": {}}
    assert asked == [(12, 4), (4, 4)]
    assert made.bundle == str(default_bundle())
