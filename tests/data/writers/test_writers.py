"""What every format promises: whole or not there, resumable, each index exactly once."""

from __future__ import annotations

import errno
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from synfer_rt.data.writers import FORMATS, check_output, discard_empty, open_output, read, run_file
from synfer_rt.errors import UserError

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


def open_run(run, out, format, count=10, resume=False):
    settings = run.settings(format, count)
    return open_output(out, settings, resume=resume, shard_size=run.shard_size)


def finished(run, out, format, count=10):
    with_all = open_run(run, out, format, count, resume=True)
    run.write(with_all, count)
    with_all.finish()
    return list(read(out))


def final_files(out):
    return sorted(p for p in out.rglob("*") if p.is_file() and p.suffix != ".partial")


def assert_complete(run, samples, count=10):
    assert [record["index"] for record, _ in samples] == list(range(count))
    for record, png in samples:
        assert png == run.png(record["index"])


def test_what_is_written_is_read_back(run, tmp_path, format):
    samples = finished(run, tmp_path / "out", format)
    assert_complete(run, samples)
    for record, _ in samples:
        record.pop("file_name")
        assert record == run.record(record["index"])


def test_a_finished_run_leaves_no_temporary_file(run, tmp_path, format):
    finished(run, tmp_path / "out", format)
    assert not list(tmp_path.rglob("*.partial"))


def test_two_runs_of_the_same_samples_are_equal_byte_for_byte(run, tmp_path, format):
    finished(run, tmp_path / "a", format)
    writer = open_run(run, tmp_path / "b", format)
    run.write(writer, 5)
    writer.close()
    finished(run, tmp_path / "b", format)
    a, b = final_files(tmp_path / "a"), final_files(tmp_path / "b")
    assert [p.relative_to(tmp_path / "a") for p in a] == [p.relative_to(tmp_path / "b") for p in b]
    assert [p.read_bytes() for p in a] == [p.read_bytes() for p in b]


def begin(run, out, format, seed):
    """The seed, if a run with it begins in `out`, or why it does not."""
    try:
        run_file.begin(out, run.settings(format) | {"seed": seed})
    except UserError as error:
        return str(error)
    return seed


def test_of_runs_that_begin_at_once_one_has_the_directory(run, tmp_path, format):
    out, gate = tmp_path / "out", threading.Barrier(8)

    def at_once(seed):
        gate.wait()
        return begin(run, out, format, seed)

    with ThreadPoolExecutor(8) as pool:
        ends = list(pool.map(at_once, range(8)))
    (winner,) = (end for end in ends if isinstance(end, int))
    assert run_file.load(out)["seed"] == winner
    assert all("already holds a run" in e or "Another synfer-rt" in e for e in ends if e != winner)
    assert [file.name for file in run_file.folder(out).iterdir()] == [run_file.FILE]
    assert not list(out.iterdir())


def test_a_run_that_begins_while_another_is_being_named_is_refused(
    run, tmp_path, format, monkeypatch
):
    out, said, replace = tmp_path / "out", [], os.replace

    def slowly(source, target):
        monkeypatch.setattr(os, "replace", replace)
        said.append(begin(run, out, format, 2))
        replace(source, target)

    monkeypatch.setattr(os, "replace", slowly)
    assert begin(run, out, format, 1) == 1
    assert "Another synfer-rt is writing" in said[0]
    assert run_file.load(out)["seed"] == 1


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


def test_nothing_has_its_final_name_before_it_is_whole(run, tmp_path, format, monkeypatch):
    def killed(*_):
        raise KeyboardInterrupt

    writer = open_run(run, tmp_path / "out", format)
    monkeypatch.setattr(os, "replace", killed)
    with pytest.raises(KeyboardInterrupt):
        run.write(writer, 10)
        writer.finish()
    assert not final_files(tmp_path / "out")
    writer.close()


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


def test_an_output_that_exists_is_refused_without_resume(run, tmp_path, format):
    finished(run, tmp_path / "out", format)
    with pytest.raises(UserError, match="--resume"):
        open_run(run, tmp_path / "out", format)


def test_a_directory_of_something_else_is_refused(run, tmp_path, format):
    (tmp_path / "thesis.tex").touch()
    for resume in (False, True):
        with pytest.raises(UserError, match="holds no run"):
            open_run(run, tmp_path, format, resume=resume)
    assert [p.name for p in tmp_path.iterdir()] == ["thesis.tex"]


def test_other_settings_are_refused_by_name(run, tmp_path, format):
    finished(run, tmp_path / "out", format)
    settings = run.settings(format) | {"seed": 8}
    with pytest.raises(UserError, match="another seed: 7, now 8"):
        open_output(tmp_path / "out", settings, resume=True, shard_size=run.shard_size)


def test_a_run_without_a_sample_can_be_taken_back(run, tmp_path, format):
    open_run(run, tmp_path, format).close()
    discard_empty(tmp_path)
    assert not list(tmp_path.iterdir()) and not run_file.folder(tmp_path).exists()


def test_a_run_with_a_sample_is_never_taken_back(run, tmp_path, format):
    writer = open_run(run, tmp_path, format)
    run.write(writer, 1)
    writer.close()
    discard_empty(tmp_path)
    assert open_run(run, tmp_path, format, resume=True).done == 1


def test_the_settings_of_a_directory_that_is_gone_are_no_run(run, tmp_path, format):
    writer = open_run(run, tmp_path / "out", format)
    run.write(writer, 3)
    writer.close()
    shutil.rmtree(tmp_path / "out")
    settings = run.settings(format) | {"seed": 8}
    assert open_output(tmp_path / "out", settings, resume=False).done == 0
    assert not list(run_file.folder(tmp_path / "out").glob("*sheet*"))


def test_a_run_whose_settings_lie_among_its_samples_goes_on(run, tmp_path, format):
    out = tmp_path / "out"
    writer = open_run(run, out, format)
    run.write(writer, 6)
    writer.close()
    for file in run_file.folder(out).iterdir():  # as older releases left them
        file.rename(out / file.name)
    (out / run_file.OLD_SHEET).touch()
    with pytest.raises(UserError, match="already holds a run"):
        open_run(run, out, format)
    resumed = open_run(run, out, format, resume=True)
    assert resumed.done == 6
    run.write(resumed, 10)
    resumed.finish()
    assert_complete(run, list(read(out)))
    finished(run, tmp_path / "other", format)
    for kind in "out", "__out__":
        names = [f.relative_to(tmp_path / kind) for f in final_files(tmp_path / kind)]
        like = tmp_path / kind.replace("out", "other")
        assert names == [f.relative_to(like) for f in final_files(like)]


def test_a_link_to_a_directory_elsewhere_is_followed(run, tmp_path, format):
    (tmp_path / "disk/faces").mkdir(parents=True)
    (tmp_path / "faces").symlink_to(tmp_path / "disk/faces")
    assert_complete(run, finished(run, tmp_path / "faces", format))
    assert (tmp_path / "disk/__faces__/run.json").is_file()
    assert_complete(run, list(read(tmp_path / "disk/faces")))


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


def test_asking_whether_a_run_is_there_writes_nothing(run, tmp_path, format):
    settings = run.settings(format)
    assert not check_output(tmp_path / "out", settings, resume=True)
    assert not (tmp_path / "out").exists()
    open_output(tmp_path / "out", settings, resume=False).close()
    assert check_output(tmp_path / "out", settings, resume=True)


def test_a_run_that_is_being_written_is_refused(run, tmp_path, format):
    writer = open_run(run, tmp_path / "out", format)
    run.write(writer, 3)
    with pytest.raises(UserError, match="Another synfer-rt is writing"):
        open_run(run, tmp_path / "out", format, resume=True)
    run.write(writer, 10)
    writer.finish()
    assert_complete(run, list(read(tmp_path / "out")))


def test_an_unwritable_directory_is_one_sentence(run, tmp_path, format):
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=r"Cannot write .*--out"):
        open_run(run, tmp_path / "file" / "out", format)


@pytest.mark.skipif(not hasattr(os, "seteuid"), reason="needs POSIX users")
def test_a_directory_without_permission_is_one_sentence(run, tmp_path, format):
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o500)
    root = os.geteuid() == 0
    if root:
        os.seteuid(65534)
    try:
        with pytest.raises(UserError, match="Permission denied"):
            open_run(run, closed / "out", format)
    finally:
        if root:
            os.seteuid(0)


def test_a_path_that_is_too_long_is_one_sentence(run, tmp_path, format):
    with pytest.raises(UserError, match="shorter path"):
        open_run(run, tmp_path / ("x" * 300), format)


def test_a_disk_without_space_is_one_sentence(run, tmp_path, format, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    writer = open_run(run, tmp_path / "out", format)
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(UserError, match="free some space"):
        run.write(writer, 10)
        writer.finish()


@pytest.fixture
def full_disk(tmp_path):
    """A file system of 128 KiB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = shutil.which("mount")
    options = ["-t", "tmpfs", "-o", "size=128k", "none", str(disk)]
    if not mount or subprocess.run([mount, *options], capture_output=True).returncode:
        pytest.skip("may not mount a file system")
    yield disk
    subprocess.run(["umount", str(disk)], check=True)


def test_a_mount_point_holds_the_runs_own_folder_too(run, full_disk, format):
    assert_complete(run, finished(run, full_disk, format))
    assert (full_disk / "__run__/run.json").is_file()
    assert open_run(run, full_disk, format, resume=True).done == 10


def test_a_full_disk_is_one_sentence_and_the_run_resumes(run, full_disk, format):
    writer = open_run(run, full_disk / "out", format, 400)
    with pytest.raises(UserError, match="free some space"):
        run.write(writer, 400)
    try:
        writer.close()
    except UserError as error:
        assert "free some space" in str(error)
    subprocess.run(["mount", "-o", "remount,size=64m", str(full_disk)], check=True)
    assert_complete(run, finished(run, full_disk / "out", format, 400), 400)


FILE_LIMIT = """
import resource, sys
sys.path.insert(0, {tests!r})
from small_run import SmallRun
from pathlib import Path
from synfer_rt.errors import UserError
from synfer_rt.data.writers import open_output
run = SmallRun()
writer = open_output(Path(sys.argv[1]), run.settings(sys.argv[2], 40), resume=False)
run.write(writer, 3)
resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
try:
    run.write(writer, 40)
except UserError as error:
    print(error)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="needs POSIX limits")
def test_a_limit_on_file_sizes_is_one_sentence(tmp_path, format):
    script = FILE_LIMIT.format(tests=str(Path(__file__).parent))
    command = [sys.executable, "-c", script, str(tmp_path / "out"), format]
    said = subprocess.run(command, capture_output=True, text=True, check=False).stdout
    assert "raise the limit on file sizes" in said and "--resume" in said
