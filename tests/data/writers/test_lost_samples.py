"""What a run lost or had damaged is made again, and nothing else."""

from __future__ import annotations

import os
import shutil

import pytest

from synfer_rt.data.writers import FORMATS, read, run_file
from tests.data.writers.small_run import assert_complete, final_files, finished, open_run

pytestmark = pytest.mark.parametrize("format", FORMATS)


def damage(out, format):
    """Take something from a finished run; returns the indices that lack then."""
    if format == "imagefolder":
        shutil.rmtree(out / "happy")
        for index, lost in (3, 1), (6, 40):
            png = out / f"neutral/{index:08d}.png"
            os.truncate(png, png.stat().st_size - lost)
        return [1, 3, 4, 6, 7]
    first, _, last = sorted(file for file in out.iterdir() if file.is_file())
    first.unlink()
    os.truncate(last, last.stat().st_size // 2)
    return [0, 1, 2, 3, 8, 9]


@pytest.mark.parametrize("interrupted", [False, True])
def test_what_a_finished_run_lost_is_made_again_and_nothing_else(
    run, tmp_path, format, interrupted
):
    out = tmp_path / "out"
    finished(run, out, format)
    before = {file: file.read_bytes() for file in final_files(out)}
    lacking = damage(out, format)
    times = {file: file.stat().st_mtime_ns for file in final_files(out)}
    writer = open_run(run, out, format, resume=True)
    assert (list(writer.lacking), writer.done) == (lacking, 10 - len(lacking))
    if interrupted:
        run.write(writer, 4)
        writer.close()
        writer = open_run(run, out, format, resume=True)
        assert set(writer.lacking) < set(lacking)
    run.write(writer, 10)
    assert writer.done == 10
    writer.finish()
    assert {file: file.read_bytes() for file in final_files(out)} == before
    kept = [file for file in times if file.stat().st_mtime_ns == times[file]]
    assert len(kept) == {"imagefolder": 6}.get(format, 1)
    assert not list(run_file.growing(out))


def test_what_was_begun_after_a_lost_shard_is_kept(run, tmp_path, format):
    out = tmp_path / "out"
    writer = open_run(run, out, format)
    run.write(writer, 9)
    writer.close()
    if format == "imagefolder":
        (out / "sad/00000002.png").unlink()
        lacking = [2, 9]
    else:
        min(file for file in out.iterdir() if file.is_file()).unlink()
        lacking = [0, 1, 2, 3, 9]
    resumed = open_run(run, out, format, resume=True)
    assert list(resumed.lacking) == lacking
    run.write(resumed, 10)
    resumed.finish()
    assert_complete(run, list(read(out)))
