"""The host side's measurement runs whole runs, with engines that return at once."""

from __future__ import annotations

import threading
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from synfer_rt.bench import host_side
from synfer_rt.bench.host_side import HostSide, InstantEngines, measure
from synfer_rt.bundle import Bundle
from synfer_rt.data.writers import open_output, read
from synfer_rt.jobs.sample import execute
from synfer_rt.jobs.sample_settings import make_run


@pytest.fixture(scope="module")
def engines(tiny_bundle: Bundle) -> InstantEngines:
    return InstantEngines(tiny_bundle)


def test_a_run_writes_pictures_of_the_decoder(engines: InstantEngines, tmp_path: Path) -> None:
    run = make_run(engines.bundle, count=10)
    out = tmp_path / "out"
    summary = execute(run, engines, open_output(out, run.settings("webdataset"), resume=False), 4)
    records = [record for record, _ in read(out)]
    assert [record["index"] for record in records] == list(range(10))
    assert {record["backend"] for record in records} == {"instant"}
    assert summary.broken == 0 and records[3]["prompt"] == run.requests[3].prompt


@pytest.mark.parametrize("format", ["imagefolder", "parquet"])
def test_the_time_of_every_thread_is_counted(engines: InstantEngines, format: str) -> None:
    run = threading.Thread.run
    found = measure(make_run(engines.bundle, count=20), engines, format, 8)
    pools = {"sampling", "prepare", "label", "encode", "write"}
    assert set(found.threads) == pools | ({"save"} if format == "imagefolder" else set())
    assert all(seconds > 0 for seconds in found.threads.values())
    assert found.images == 20 and found.seconds > 0
    assert threading.Thread.run is run


def test_a_line_is_time_for_an_image() -> None:
    side = HostSide("parquet", 2000, 0.5, {"sampling": 0.04, "write": 0.2})
    assert "4000 images/s" in str(side) and "120 (sampling 20, write 100)" in str(side)


def test_the_command_prints_a_line_for_each_run(
    tiny_bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(host_side, "open_bundle", lambda: tiny_bundle)
    words = ["--count", "8", "--batch", "4", "--repeats", "2", "--format", "webdataset"]
    result = CliRunner().invoke(host_side.main, words, catch_exceptions=False)
    assert result.output.count("webdataset") == len(result.output.splitlines()) == 2
    assert np.all(["images/s" in line for line in result.output.splitlines()])
