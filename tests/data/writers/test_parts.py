"""A run that several processes make in parts has the bytes of the run of one."""

from __future__ import annotations

import errno
import itertools
import os
import shutil
import signal
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import pytest

from synfer_rt.data.datasets import read_dataset
from synfer_rt.data.writers import FORMATS, Writer, join_output, read, run_file, shards_of
from synfer_rt.data.writers.shards import Part
from synfer_rt.errors import UserError
from synfer_rt.jobs.verify import faults, settings_of
from tests.data.writers.small_run import SmallRun, assert_complete, finished, open_run

pytestmark = pytest.mark.parametrize("format", FORMATS)
ONE = Part(0, 1)

SLOW_PART = """
import sys, time
sys.path.insert(0, {tests!r})
from small_run import SmallRun
from pathlib import Path
from synfer_rt.data.writers import open_output
from synfer_rt.data.writers.shards import Part
run = SmallRun()
out, format, number, pause = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]), float(sys.argv[4])
settings = run.settings(format, 30)
writer = open_output(out, settings, resume=False, shard_size=4, part=Part(number, 3))
for index in writer.lacking:
    writer.write([run.record(index)], [run.png(index)])
    print(index, flush=True)
    time.sleep(pause)
writer.finish()
"""


def files(out: Path) -> dict[str, bytes]:
    """The files of an output by name."""
    paths = [path for path in out.rglob("*") if path.is_file()]
    return {path.relative_to(out).as_posix(): path.read_bytes() for path in paths}


def write_part(run: SmallRun, writer: Writer, stop: int = 10**9) -> None:
    """Write what a part lacks up to `stop`, three samples at a time."""
    todo = [index for index in writer.lacking if index < stop]
    for first in range(0, len(todo), 3):
        batch = todo[first : first + 3]
        writer.write([run.record(i) for i in batch], [run.png(i) for i in batch])


def make(run: SmallRun, out: Path, format: str, part: Part, count: int = 10) -> Writer:
    """Make a part of the run in `out`."""
    writer = open_run(run, out, format, count, part=part)
    write_part(run, writer)
    writer.finish()
    return writer


def finished_at(out: Path, number: int) -> float | None:
    """When a shard of the run in `out` was finished."""
    with closing(shards_of(out, settings_of(out))) as shards:
        return shards.finished_at(number)


def assert_as_one(run: SmallRun, out: Path, format: str, count: int = 10) -> None:
    """The run in `out` is finished and has the files that one process writes, and no others."""
    finished(run, out.with_name("one"), format, count)
    assert files(out) == files(out.with_name("one"))
    assert [path.name for path in run_file.folder(out).iterdir()] == [run_file.FILE]
    assert not list(faults(out, settings_of(out)))


def test_parts_in_any_order_make_the_run_of_one_process(run, tmp_path, format):
    for number, order in enumerate(itertools.permutations(range(3))):
        out = tmp_path / str(number) / "parts"
        missing = [make(run, out, format, Part(k, 3)).missing for k in order]
        assert missing == [2, 1, 0]
        assert_as_one(run, out, format)


@pytest.mark.parametrize(("count", "parts"), [(1, 1), (4, 2), (8, 2), (9, 4), (10, 7)])
def test_any_number_of_parts_makes_any_number_of_images(run, tmp_path, format, count, parts):
    for number in reversed(range(parts)):
        make(run, tmp_path / "parts", format, Part(number, parts), count)
    assert_as_one(run, tmp_path / "parts", format, count)


def test_a_part_counts_what_is_its_own(run, tmp_path, format):
    writer = open_run(run, tmp_path / "out", format, part=Part(0, 2))
    assert (list(writer.lacking), writer.count, writer.done) == ([0, 1, 2, 3, 8, 9], 6, 0)
    write_part(run, writer)
    assert writer.done == 6
    writer.finish()
    assert writer.missing == 1
    again = open_run(run, tmp_path / "out", format, part=Part(0, 2))
    assert not again.lacking and again.done == 6
    again.close()


def test_processes_at_once_of_which_one_is_killed_make_the_run(run, tmp_path, format):
    out, count = tmp_path / "parts", 30
    script = SLOW_PART.format(tests=str(Path(__file__).parent))

    def start(number: int, pause: float) -> subprocess.Popen[str]:
        command = [sys.executable, "-c", script, str(out), format, str(number), str(pause)]
        return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)

    killed, other = start(0, 0.01), start(1, 0)
    assert killed.stdout is not None and other.stdout is not None
    while killed.stdout.readline() != "13\n":  # in the middle of its second shard
        assert killed.poll() is None
    killed.send_signal(signal.SIGKILL)
    assert other.wait() == 0 and killed.wait() == -signal.SIGKILL
    killed.stdout.close()
    other.stdout.close()
    (left,) = run_file.folder(out).glob("*.by-*.partial")
    make(run, out, format, Part(2, 3), count)
    assert left.exists()
    again = open_run(run, out, format, count, part=Part(0, 3))
    assert next(iter(again.lacking)) == 12 and again.done == 4
    write_part(run, again)
    again.finish()
    assert_as_one(run, out, format, count)


def test_a_part_goes_on_beside_the_unfinished_shard_of_another(run, tmp_path, format):
    out = tmp_path / "parts"
    slow = open_run(run, out, format, part=Part(0, 2))
    write_part(run, slow, 2)
    (shard,) = run_file.growing(out)
    assert make(run, out, format, Part(1, 2)).missing == 2
    assert shard.exists()
    batch = [i for i in slow.lacking if i >= 2]
    slow.write([run.record(i) for i in batch], [run.png(i) for i in batch])
    slow.finish()
    assert_as_one(run, out, format)


def test_of_two_that_make_the_same_shard_the_first_has_it(run, tmp_path, format):
    out = tmp_path / "parts"
    first, second = (open_run(run, out, format, part=ONE) for _ in range(2))
    for writer in first, second:
        write_part(run, writer, 4)
    when = finished_at(out, 0)
    batch = range(4, 10)
    for writer in second, first:
        writer.write([run.record(i) for i in batch], [run.png(i) for i in batch])
    assert finished_at(out, 0) == when
    for writer in second, first:
        writer.finish()
    assert_as_one(run, out, format)


def test_a_part_ends_well_that_another_process_made_whose_run_is_finished(run, tmp_path, format):
    """What the slower process has written of its shard is removed when the run is finished."""
    out = tmp_path / "parts"
    slow = open_run(run, out, format, part=ONE)
    write_part(run, slow, 6)
    make(run, out, format, ONE)
    batch = range(6, 10)
    slow.write([run.record(i) for i in batch], [run.png(i) for i in batch])
    slow.finish()
    assert slow.done == 10 and not slow.missing
    assert_as_one(run, out, format)


def test_settings_that_a_removed_run_has_left_are_named(run, tmp_path, format):
    out = tmp_path / "parts"
    make(run, out, format, Part(0, 3))
    shutil.rmtree(out)
    for _ in range(2):
        with pytest.raises(UserError, match=r"another count: 10, now 11; .* remove .*__parts__ to"):
            open_run(run, out, format, 11, part=ONE)
    for number in range(3):  # the same run goes on
        make(run, out, format, Part(number, 3))
    assert_as_one(run, out, format)


def test_a_part_that_is_stopped_leaves_no_unfinished_shard(run, tmp_path, format):
    out = tmp_path / "parts"
    writer = open_run(run, out, format, part=ONE)
    write_part(run, writer, 6)
    writer.close()
    assert not list(run_file.folder(out).glob("*.partial"))
    again = open_run(run, out, format, part=ONE)
    assert again.done == 4
    write_part(run, again)
    again.finish()
    assert_as_one(run, out, format)


def damage(out: Path, format: str) -> Path:
    """Cut the second shard of a run short; its file."""
    name = {"webdataset": "000001.tar", "parquet": "data-00001.parquet"}.get(format)
    (path,) = out.glob(name) if name else out.glob("*/00000005.png")
    os.truncate(path, path.stat().st_size // 2)
    return path


def made_again(out: Path, path: Path) -> list[Path]:
    """The files of a damaged shard, of which one is `path`; the metadata of all may be new too."""
    images = [file for index in range(4, 8) for file in out.glob(f"*/{index:08d}.png")]
    return [path, *images]


@pytest.mark.parametrize("done", [1, 3])
def test_a_damaged_shard_is_made_again_and_no_other(run, tmp_path, format, done):
    out = tmp_path / "parts"
    for number in (1, 0, 2)[:done]:
        make(run, out, format, Part(number, 3))
    path = damage(out, format)
    others = {p: p.stat().st_mtime_ns for p in out.rglob("*.*") if p not in made_again(out, path)}
    writer = open_run(run, out, format, part=Part(1, 3))
    assert list(writer.lacking) == [4, 5, 6, 7]
    write_part(run, writer)
    writer.finish()
    assert {p: p.stat().st_mtime_ns for p in others} == others
    for number in range(3):
        make(run, out, format, Part(number, 3))
    assert_as_one(run, out, format)


@pytest.mark.parametrize("made", [0, 3, 4, 7, 10])
def test_parts_go_on_with_what_one_process_has_made(run, tmp_path, format, made):
    out = tmp_path / "parts"
    writer = open_run(run, out, format)
    run.write(writer, made)
    writer.close()
    part = open_run(run, out, format, part=Part(0, 2))
    assert part.done == {0: 0, 3: 0, 4: 4, 7: 4}.get(made, 6 if format == "imagefolder" else 4)
    part.close()
    for number in range(2):
        make(run, out, format, Part(number, 2))
    assert_as_one(run, out, format)


@pytest.mark.parametrize("parts", [(), (0,), (1,), (0, 1, 2)])
def test_one_process_goes_on_with_what_parts_have_made(run, tmp_path, format, parts):
    out = tmp_path / "parts"
    open_run(run, out, format, part=Part(0, 3)).close()
    for number in parts:
        make(run, out, format, Part(number, 3))
    killed = run_file.folder(out) / "000002.tar.by-node7-4711-0a1b2c3d.partial"
    killed.write_bytes(b"torn")
    writer = open_run(run, out, format, resume=True)
    assert writer.done == sum(len(range(4 * k, min(4 * k + 4, 10))) for k in parts)
    write_part(run, writer)
    writer.finish()
    assert_as_one(run, out, format)


def test_of_parts_that_begin_at_once_one_writes_the_settings(run, tmp_path, format):
    out, gate = tmp_path / "out", threading.Barrier(8)

    def begin(seed: int) -> int | str:
        gate.wait()
        try:
            join_output(out, run.settings(format) | {"seed": seed // 2})
        except UserError as error:
            return str(error)
        return seed // 2

    with ThreadPoolExecutor(8) as pool:
        ends = list(pool.map(begin, range(8)))
    winner = run_file.load(out)["seed"]
    assert ends.count(winner) == 2
    assert all(f"another seed: {winner}, now" in str(end) for end in ends if end != winner)
    assert [file.name for file in run_file.folder(out).iterdir()] == [run_file.FILE]


def test_a_part_with_other_settings_is_refused_by_name(run, tmp_path, format):
    make(run, tmp_path / "out", format, Part(0, 2))
    before = files(tmp_path / "out")
    with pytest.raises(UserError, match="another count: 10, now 11"):
        open_run(run, tmp_path / "out", format, 11, part=Part(1, 2))
    assert files(tmp_path / "out") == before


def test_a_part_does_not_write_among_other_files(run, tmp_path, format):
    (tmp_path / "thesis.tex").touch()
    with pytest.raises(UserError, match="holds no run"):
        open_run(run, tmp_path, format, part=ONE)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


def test_a_file_system_without_links_will_do(run, tmp_path, format, monkeypatch):
    def refuse(*_):
        raise OSError(errno.EPERM, os.strerror(errno.EPERM))

    monkeypatch.setattr(os, "link", refuse)
    for number in range(3):
        make(run, tmp_path / "parts", format, Part(number, 3))
    assert_as_one(run, tmp_path / "parts", format)


def test_a_full_disk_is_one_sentence_and_the_part_goes_on(run, tmp_path, format, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    writer = open_run(run, tmp_path / "parts", format, part=ONE)
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(UserError, match="free some space"):
            write_part(run, writer)
        writer.close()
    make(run, tmp_path / "parts", format, ONE)
    assert_as_one(run, tmp_path / "parts", format)


@pytest.mark.parametrize("made", [[0], [0, 1]])
def test_a_run_that_lacks_parts_is_not_read(run, tmp_path, format, made):
    for number in made:
        make(run, tmp_path / "out", format, Part(number, 3))
    with pytest.raises(UserError, match=r"not finished|lacks \d of the shards"):
        read_dataset(tmp_path / "out")
    assert list(faults(tmp_path / "out", settings_of(tmp_path / "out")))


def test_images_of_a_shard_that_was_not_finished_are_not_read(run, tmp_path, format):
    writer = open_run(run, tmp_path / "out", format, part=ONE)
    write_part(run, writer, 3)
    writer.close()
    with pytest.raises(UserError, match=r"not finished|has no files"):
        read_dataset(tmp_path / "out")


def test_the_last_parts_may_end_at_once(run, tmp_path, format):
    writers = [open_run(run, tmp_path / "parts", format, part=Part(k, 3)) for k in range(3)]
    for writer in writers:
        write_part(run, writer)
    with ThreadPoolExecutor(3) as pool:
        list(pool.map(lambda writer: writer.finish(), writers))
    assert_complete(run, list(read(tmp_path / "parts")))
    assert_as_one(run, tmp_path / "parts", format)
