"""`sample --resume`: a run goes on where it stopped, by its own settings."""

from __future__ import annotations

import io
import signal
import subprocess
import sys
import time

import numpy as np
from PIL import Image

from synfer_rt.data.writers import read
from tests.commands.test_cli import refused

COMMAND = [sys.executable, "-m", "synfer_rt"]
REQUEST = ("index", "seed", "requested_label", "prompt", "aus", "layout", "bundle")


def test_an_output_that_exists_is_refused(sample, tmp_path):
    assert sample("--count", "4").exit_code == 0
    before = (tmp_path / "out/metadata.jsonl").read_bytes()
    assert "--resume" in refused(sample("--count", "4"))
    assert (tmp_path / "out/metadata.jsonl").read_bytes() == before


def test_resuming_with_other_settings_names_the_setting(sample):
    sample("--count", "4", "--guidance", "2")
    assert "guidance: 2.0, now 3.0" in refused(
        sample("--count", "4", "--guidance", "3", "--resume")
    )


def test_a_run_goes_on_with_shards_of_its_size(sample):
    assert sample("--count", "5", "--shard-size", "4").exit_code == 0
    said = refused(sample("--count", "5", "--resume"))
    assert "begun with another shard size: 4, now 10000; resume it" in said
    assert sample("--count", "5", "--shard-size", "4", "--resume").exit_code == 0


def test_a_run_that_lacks_its_card_gets_the_same_when_it_is_resumed(sample, tmp_path):
    sample("--count", "4")
    card = tmp_path / "out/README.md"
    written = card.read_text()
    assert "model: `synfer-tiny` 1.0" in written and "synfer-rt sample" in written
    card.unlink()
    assert sample("--count", "4", "--resume").exit_code == 0
    assert card.read_text() == written


def test_resuming_a_finished_run_does_nothing(sample, tmp_path):
    sample("--count", "4")
    before = {p: p.stat().st_mtime_ns for p in (tmp_path / "out").rglob("*")}
    result = sample("--count", "4", "--resume")
    assert result.exit_code == 0 and "already holds all 4 images" in result.output
    assert {p: p.stat().st_mtime_ns for p in (tmp_path / "out").rglob("*")} == before


def test_resume_starts_a_run_that_is_not_there(sample, tmp_path):
    assert sample("--count", "4", "--resume").exit_code == 0
    assert len(list(read(tmp_path / "out"))) == 4


def start(engines, out, *options):
    command = [*COMMAND, "sample", "--bundle", str(engines), "--out", str(out), "--threads", "1"]
    command += ["--backend", "onnxruntime-cpu"]
    return subprocess.Popen(
        [*command, *options], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def wait_for_images(process, out):
    deadline = time.monotonic() + 30
    while not list(out.rglob("*.png")):
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.005)


def test_a_killed_run_resumes_with_each_index_exactly_once(sample, tiny_bundle_path, tmp_path):
    options = ("--count", "1200", "--batch", "4")
    process = start(tiny_bundle_path, tmp_path / "out", *options)
    wait_for_images(process, tmp_path / "out")
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert process.returncode == -signal.SIGKILL
    assert not (tmp_path / "out/metadata.jsonl").exists()
    result = sample("--count", "1200", "--batch", "256", "--resume")
    assert result.exit_code == 0, result.output
    assert sample("--count", "1200", "--batch", "64", out=tmp_path / "whole").exit_code == 0
    resumed, whole = (list(read(tmp_path / out)) for out in ("out", "whole"))
    assert [record["index"] for record, _ in resumed] == list(range(1200))
    for (record, png), (other, other_png) in zip(resumed, whole, strict=True):
        assert [record[key] for key in REQUEST] == [other[key] for key in REQUEST]
        one, two = (np.asarray(Image.open(io.BytesIO(x)), np.int16) for x in (png, other_png))
        assert np.abs(one - two).max() <= 2
