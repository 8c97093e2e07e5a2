"""Runs that stop, are killed or end early go on with each index exactly once."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from synfer_rt.data.writers import FORMATS, read, run_file
from tests.data.writers.small_run import assert_complete, final_files, finished, open_run

pytestmark = pytest.mark.parametrize("format", FORMATS)


SLOW_RUN = """
import sys, time
sys.path.insert(0, {tests!r})
from small_run import SmallRun
from pathlib import Path
from synfer_rt.data.writers import open_output
run = SmallRun()
out, format, count = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
writer = open_output(out, run.settings(format, count), resume=True, shard_size=run.shard_size)
print(writer.done, flush=True)
run.write(writer, count)
writer.finish()
"""


def test_a_closed_run_resumes_where_it_stopped(run, tmp_path, format):
    writer = open_run(run, tmp_path / "out", format)
    run.write(writer, 6)
    writer.close()
    assert open_run(run, tmp_path / "out", format, resume=True).done == 6


def test_a_finished_run_has_nothing_left_to_do(run, tmp_path, format):
    finished(run, tmp_path / "out", format)
    before = {p: p.stat().st_mtime_ns for p in final_files(tmp_path / "out")}
    writer = open_run(run, tmp_path / "out", format, resume=True)
    writer.finish()
    assert writer.done == 10
    assert {p: p.stat().st_mtime_ns for p in final_files(tmp_path / "out")} == before


@pytest.mark.parametrize("made", [6, 8])
def test_a_run_may_end_before_its_count(run, tmp_path, format, made):
    writer = open_run(run, tmp_path / "out", format)
    run.write(writer, made)
    writer.finish()
    assert writer.count == made
    assert_complete(run, list(read(tmp_path / "out")), made)
    resumed = open_run(run, tmp_path / "out", format, resume=True)
    assert resumed.done == resumed.count == made
    resumed.close()


def test_a_run_killed_while_it_ended_early_is_finished(run, tmp_path, format):
    writer = open_run(run, tmp_path / "out", format)
    run.write(writer, 6)
    run_file.end(tmp_path / "out", 6)
    writer.close()
    resumed = open_run(run, tmp_path / "out", format, resume=True)
    assert resumed.done == resumed.count == 6
    resumed.finish()
    assert_complete(run, list(read(tmp_path / "out")), 6)


@pytest.mark.parametrize("made", [0, 4, 8])
def test_a_run_killed_between_two_shards_may_end_there(run, tmp_path, format, made):
    writer = open_run(run, tmp_path / "out", format)
    run.write(writer, made)
    writer.close()
    open_run(run, tmp_path / "out", format, resume=True).finish()
    assert not list(tmp_path.rglob("*.partial"))
    assert_complete(run, list(read(tmp_path / "out")), made)
    assert open_run(run, tmp_path / "out", format, resume=True).done == made


@pytest.mark.parametrize("made", [0, 3, 4, 7])
def test_the_records_of_a_begun_run_can_be_read(run, tmp_path, format, made):
    writer = open_run(run, tmp_path / "out", format)
    run.write(writer, made)
    writer.close()
    resumed = open_run(run, tmp_path / "out", format, resume=True)
    found = list(resumed.records())
    resumed.close()
    expected = [run.record(i) for i in range(made)]
    keys = ("index", "label", "probabilities", "rectified", "accepted")
    assert [[r[k] for k in keys] for r in found] == [[r[k] for k in keys] for r in expected]


@pytest.mark.parametrize("lost", [1, 100, 600, 1500, 4000])
def test_a_torn_temporary_file_costs_only_the_torn_samples(run, tmp_path, format, lost):
    writer = open_run(run, tmp_path / "out", format)
    run.write(writer, 7)
    writer.close()
    (torn,) = run_file.growing(tmp_path / "out")
    size = torn.stat().st_size
    os.truncate(torn, max(0, size - lost))
    resumed = open_run(run, tmp_path / "out", format, resume=True)
    assert resumed.done < 7
    resumed.close()
    assert_complete(run, finished(run, tmp_path / "out", format))


def test_zeros_at_the_end_of_a_temporary_file_are_not_taken_for_samples(run, tmp_path, format):
    writer = open_run(run, tmp_path / "out", format)
    run.write(writer, 7)
    writer.close()
    (torn,) = run_file.growing(tmp_path / "out")
    with torn.open("r+b") as file:
        file.seek(-300, os.SEEK_END)
        file.write(bytes(300))
    assert_complete(run, finished(run, tmp_path / "out", format))


def test_a_run_killed_between_the_last_sample_and_the_renaming_is_finished(run, tmp_path, format):
    writer = open_run(run, tmp_path / "out", format)
    run.write(writer, 10)
    writer.close()
    resumed = open_run(run, tmp_path / "out", format, resume=True)
    assert resumed.done == 10
    resumed.finish()
    assert_complete(run, list(read(tmp_path / "out")))


def test_sigkill_at_any_moment_leaves_each_index_exactly_once(run, tmp_path, format):
    out, count = tmp_path / "out", 3000
    script = SLOW_RUN.format(tests=str(Path(__file__).parent))
    starts = []
    for delay in (0.0, 0.01, 0.03, 0.1, 0.1, 0.2, 0.4, 0.8, 1.6):
        command = [sys.executable, "-c", script, str(out), format, str(count)]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert process.stdout is not None
        starts.append(int(process.stdout.readline()))
        time.sleep(delay)
        process.send_signal(signal.SIGKILL)
        process.wait()
        process.stdout.close()
        if len(starts) >= 5 and starts[-1] > 0:
            break  # a busy machine takes longer to write anything
    assert starts == sorted(starts) and 0 < starts[-1] < count
    writer = open_run(run, out, format, count, resume=True)
    stop = writer.done + 20
    writer.close()
    assert stop < count
    settings = run.settings(format, stop)
    # The count is a setting; a shorter run keeps the test short.
    rewritten = run_file.path(out).read_text().replace(f": {count}", f": {settings['count']}")
    run_file.path(out).write_text(rewritten)
    assert_complete(run, finished(run, out, format, stop), stop)
