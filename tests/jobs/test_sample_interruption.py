"""Runs that are cut short, and what becomes of them."""

from __future__ import annotations

import os
import shutil
from dataclasses import replace

import numpy as np
import pytest

from synfer_rt.backends import loaded_engines
from synfer_rt.backends.loaded_engines import LoadedEngines
from synfer_rt.bundle import open_bundle
from synfer_rt.data.writers import FORMATS, read
from synfer_rt.errors import UserError
from synfer_rt.jobs.sample import execute
from synfer_rt.jobs.verify import faults, settings_of
from tests.jobs.runs import images, output, records, stop_after


def test_an_interrupted_run_keeps_what_was_written_and_resumes(run, engines, tmp_path):
    def interrupt(images: float) -> None:
        if images > 16:
            raise KeyboardInterrupt

    writer = output(run, tmp_path / "out")
    with pytest.raises(KeyboardInterrupt):
        execute(run, engines, writer, 8, interrupt)
    assert writer.done == 16
    resumed = output(run, tmp_path / "out", resume=True)
    assert resumed.done == 16
    assert execute(run, engines, resumed, 8).images == 5
    execute(run, engines, output(run, tmp_path / "whole"), 8)
    together = zip(images(tmp_path / "out"), images(tmp_path / "whole"), strict=True)
    assert max(np.abs(a - b).max() for a, b in together) <= 2


@pytest.fixture
def in_pieces(tiny_bundle_path, tmp_path, monkeypatch):
    """Engines that take 4 images at once, of a bundle of its own."""
    monkeypatch.setattr(loaded_engines, "_POSITIONS_PER_CALL", 4 * 64)
    bundle = open_bundle(shutil.copytree(tiny_bundle_path, tmp_path / "bundle"))
    return LoadedEngines(bundle, "onnxruntime-cpu", threads=1)


def test_finished_pieces_of_a_batch_outlive_an_interruption(run, in_pieces, tmp_path):
    run = replace(run, bundle=in_pieces.bundle)
    writer = output(run, tmp_path / "out")
    with pytest.raises(KeyboardInterrupt):
        execute(run, in_pieces, writer, 21, stop_after(10))  # in the third piece
    assert writer.done == 8
    execute(run, in_pieces, output(run, tmp_path / "out", resume=True), 21)
    execute(run, in_pieces, output(run, tmp_path / "whole"), 21)
    cut, whole = (list(read(tmp_path / out)) for out in ("out", "whole"))
    assert cut == whole


def overwrite(file, data):
    """As a copy does that keeps size and times."""
    times = file.stat().st_atime_ns, file.stat().st_mtime_ns
    with file.open("r+b") as out:
        out.write(data)
    os.utime(file, ns=times)


def while_it_runs(act):
    """Progress that acts once, in the third piece of 4."""
    pending = [act]

    def progress(images):
        if images > 8 and pending:
            pending.pop()()

    return progress


def test_a_bundle_that_changes_ends_the_run_and_nothing_mixed_is_written(run, in_pieces, tmp_path):
    run = replace(run, bundle=in_pieces.bundle)
    file = run.bundle.path / "decoder.onnx"
    other = bytes(len(file.read_bytes()))
    writer = output(run, tmp_path / "out")
    with pytest.raises(UserError, match=r"decoder\.onnx was changed or removed"):
        execute(run, in_pieces, writer, 21, while_it_runs(lambda: overwrite(file, other)))
    assert writer.done == 8


def test_a_bundle_that_is_gone_ends_the_run(run, in_pieces, tmp_path):
    run = replace(run, bundle=in_pieces.bundle)
    with pytest.raises(UserError, match="was changed or removed"):
        gone = while_it_runs((run.bundle.path / "denoiser.onnx").unlink)
        execute(run, in_pieces, output(run, tmp_path / "out"), 21, gone)


def test_a_bundle_of_the_same_bytes_is_no_other(run, in_pieces, tmp_path):
    run = replace(run, bundle=in_pieces.bundle)
    file = run.bundle.path / "decoder.onnx"
    data = file.read_bytes()

    def replaced():
        file.unlink()
        file.write_bytes(data)
        (run.bundle.path / "README.md").write_text("another card")

    writer = output(run, tmp_path / "out")
    assert execute(run, in_pieces, writer, 21, while_it_runs(replaced)).images == 21


def test_a_disk_error_while_writing_ends_the_run(run, engines, tmp_path):
    writer = output(run, tmp_path / "out")
    (tmp_path / "out/happy").touch()
    with pytest.raises(UserError, match="Cannot write"):
        execute(run, engines, writer, batch=4)


@pytest.mark.parametrize("options", [{}, {"accept_rate": 0.5}, {"quota": 1}])
@pytest.mark.parametrize("format", FORMATS)
def test_what_a_finished_run_lost_is_made_again(run, engines, tmp_path, format, options):
    run, out = replace(run, **options), tmp_path / "out"
    execute(run, engines, output(run, out, format=format, shard_size=6), batch=4)
    before, pictures = records(out), images(out)
    files = sorted(file for file in out.rglob("*.*") if file.suffix != ".jsonl")
    files[1].unlink()
    writer = output(run, out, True, format, shard_size=6)
    lost = [i for i in writer.lacking if i < len(before)]
    assert len(lost) == (1 if format == "imagefolder" else 6)
    told: list[float] = []
    execute(run, engines, writer, 4, told.append)
    assert records(out) == before and told[-1] <= run.count
    assert max(np.abs(a - b).max() for a, b in zip(pictures, images(out), strict=True)) <= 2
    assert not output(run, out, True, format, shard_size=6).lacking
    assert not list(faults(out, settings_of(out)))
