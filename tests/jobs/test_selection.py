"""What a run with quotas requests is the same whoever makes its shards."""

from __future__ import annotations

import errno
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from synfer_rt.backends.loaded_engines import LoadedEngines
from synfer_rt.bundle import Bundle
from synfer_rt.data.writers import FORMATS, open_output, read, run_file
from synfer_rt.data.writers.file_shards import UnfinishedFile
from synfer_rt.data.writers.shards import Part
from synfer_rt.errors import UserError
from synfer_rt.jobs.run_status import run_status
from synfer_rt.jobs.sample import execute
from synfer_rt.jobs.sample_run import Run
from synfer_rt.jobs.verify import faults, settings_of
from synfer_rt.sampling.requests import make_requests
from tests.data.writers.test_parts import files

QUOTAS = [
    {"quota": {"happy": 5}, "threshold": 0.005},
    {"quota": 5, "accept_rate": 0.6},
    {"quota": {"happy": 9, "fear": 2}, "accept_rate": 0.5},
    {"quota": 3},  # until the budget is used up
]


@pytest.fixture(scope="module")
def several(tiny_bundle: Bundle) -> list[LoadedEngines]:
    """Engines of three processes."""
    return [LoadedEngines(tiny_bundle, "onnxruntime-cpu", threads=1) for _ in range(3)]


def quota_run(bundle: Bundle, quota: Any, count: int = 60, **options: Any) -> Run:
    labels = ["happy", "fear", "sad"] if not isinstance(quota, dict) else list(quota)
    requests = make_requests(bundle, seed=5, labels=labels)
    return Run(bundle, requests, count, "ddim", 1, 0.9, quota=quota, **options)


def make(
    run: Run,
    engines: LoadedEngines,
    out: Path,
    format: str,
    part: Part | None = None,
    patience: float = 20,
    resume: bool = False,
) -> None:
    """Make the run, or a part of it, in shards of 4."""
    settings = run.settings(format)
    writer = open_output(out, settings, resume=resume, shard_size=4, part=part)
    execute(run, engines, writer, 3, patience=patience)


def make_in_turn(run: Run, engines: LoadedEngines, out: Path, format: str, parts: int) -> int:
    """Make the parts one after another, none of which waits; how many times that took."""
    for turn in range(50):
        try:
            make(run, engines, out, format, Part(turn % parts, parts), patience=0)
        except UserError as error:
            assert "run those parts, then this one again" in str(error)
        else:
            if run_status(out).finished:
                return turn + 1
    raise AssertionError("the run does not end")


def assert_same(out: Path, one: Path) -> None:
    assert files(out) == files(one)
    assert run_file.load(out) == run_file.load(one)
    assert [path.name for path in run_file.folder(out).iterdir()] == [run_file.FILE]
    assert not list(faults(out, settings_of(out)))


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("options", QUOTAS, ids=str)
def test_parts_at_once_make_the_run_of_one_process(
    several: list[LoadedEngines], tmp_path: Path, format: str, options: dict[str, Any]
) -> None:
    run = quota_run(several[0].bundle, **options)
    make(run, several[0], tmp_path / "one", format)
    made = [record for record, _ in read(tmp_path / "one")]
    assert {record["accepted"] for record in made} >= {False}
    assert len(made) == 60 if options == QUOTAS[-1] else 8 < len(made) < 60
    with ThreadPoolExecutor(3) as pool:
        parts = [Part(number, 3) for number in range(3)]
        out = tmp_path / "parts"
        list(pool.map(lambda p: make(run, several[p.number], out, format, p), parts))
    assert_same(tmp_path / "parts", tmp_path / "one")


@pytest.mark.parametrize("format", FORMATS)
def test_parts_in_turn_wait_for_nothing_and_lose_nothing(
    several: list[LoadedEngines], tmp_path: Path, format: str
) -> None:
    run = quota_run(several[0].bundle, 5, accept_rate=0.6)
    make(run, several[0], tmp_path / "one", format)
    assert make_in_turn(run, several[0], tmp_path / "parts", format, 2) > 2
    assert_same(tmp_path / "parts", tmp_path / "one")


@pytest.mark.parametrize("format", FORMATS)
def test_a_lost_shard_is_made_again_as_it_was(
    several: list[LoadedEngines], tmp_path: Path, format: str
) -> None:
    run, out = quota_run(several[0].bundle, 5, accept_rate=0.6), tmp_path / "parts"
    make(run, several[0], tmp_path / "one", format)
    make(run, several[0], out, format, Part(0, 1))
    assert_same(out, tmp_path / "one")
    for number in 1, -1:
        lost = sorted(
            path for path in out.rglob("*") if path.suffix in (".tar", ".parquet", ".png")
        )
        lost[number].unlink()
        make(run, several[0], out, format, Part(0, 1))
        assert_same(out, tmp_path / "one")


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("meanwhile", [0, 4])
def test_what_another_process_makes_meanwhile_changes_nothing(
    several: list[LoadedEngines], tmp_path: Path, format: str, meanwhile: int
) -> None:
    run, out = quota_run(several[0].bundle, 5, accept_rate=0.6), tmp_path / "parts"
    make(run, several[0], tmp_path / "one", format)
    settings = run.settings(format)
    late = open_output(out, settings, resume=False, shard_size=4, part=Part(0, 1))
    begun: list[float] = []

    def made(images: float) -> None:
        if images >= meanwhile and not begun:
            begun.append(images)
            make(run, several[1], out, format, Part(0, 1))

    if not meanwhile:
        made(0)
    execute(run, several[0], late, 3, made, patience=20)
    assert begun
    assert_same(out, tmp_path / "one")


@pytest.mark.parametrize("format", FORMATS)
def test_one_process_and_parts_go_on_with_each_other(
    several: list[LoadedEngines], tmp_path: Path, format: str
) -> None:
    run, out = quota_run(several[0].bundle, 5, accept_rate=0.6), tmp_path / "parts"
    make(run, several[0], tmp_path / "one", format)

    def stop(made: float) -> None:
        if made > 9:
            raise KeyboardInterrupt

    writer = open_output(out, run.settings(format), resume=False, shard_size=4)
    with pytest.raises(KeyboardInterrupt):
        execute(run, several[0], writer, 3, stop)
    with pytest.raises(UserError, match="depends on shard"):
        make(run, several[0], out, format, Part(2, 3), patience=0)
    make(run, several[0], out, format, resume=True)
    assert files(out) == files(tmp_path / "one")
    assert run_file.load(out) == run_file.load(tmp_path / "one")
    assert not list(faults(out, settings_of(out)))


def test_a_process_that_was_killed_after_noting_the_end_leaves_nothing_wrong(
    several: list[LoadedEngines], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, out = quota_run(several[0].bundle, {"happy": 5}, threshold=0.005), tmp_path / "parts"
    make(run, several[0], tmp_path / "one", "webdataset")
    last = f"{run_file.shard_count(run_file.load(tmp_path / 'one')) - 1:06d}.tar"
    with monkeypatch.context() as patch:
        publish = UnfinishedFile.publish

        def killed(shard: UnfinishedFile) -> None:
            if shard._path.name == last:
                raise KeyboardInterrupt
            publish(shard)

        patch.setattr(UnfinishedFile, "publish", killed)
        with pytest.raises(KeyboardInterrupt):
            make(run, several[0], out, "webdataset", Part(0, 1))
    assert run_file.load(out) == run_file.load(tmp_path / "one") and not (out / last).exists()
    make(run, several[0], out, "webdataset", Part(0, 1))
    assert_same(out, tmp_path / "one")


def test_a_full_disk_ends_the_wait_for_others(
    several: list[LoadedEngines], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(shard: UnfinishedFile) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(UnfinishedFile, "publish", full)
    run = quota_run(several[0].bundle, 3)
    begun = time.monotonic()
    with pytest.raises(UserError, match="No space left"):
        make(run, several[0], tmp_path / "out", "webdataset", Part(0, 3), patience=600)
    assert time.monotonic() - begun < 30


def test_patience_lasts_as_long_as_others_write(
    several: list[LoadedEngines], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run, out = quota_run(several[0].bundle, 3), tmp_path / "out"
    settings = run.settings("webdataset")
    open_output(out, settings, resume=False, shard_size=4, part=Part(1, 3)).close()
    growing = run_file.folder(out) / "000000.tar.by-other-1-00-1.partial"
    stop = threading.Event()

    def write() -> None:
        while not stop.wait(0.05):
            with growing.open("ab") as file:
                file.write(b"\0")

    writing = threading.Thread(target=write)
    writing.start()
    threading.Timer(1.5, stop.set).start()
    begun = time.monotonic()
    with pytest.raises(UserError, match="nothing was written for 0 s"):
        make(run, several[0], out, "webdataset", Part(1, 3), patience=0.4)
    assert time.monotonic() - begun > 1.5
    writing.join()


def test_interrupted_parts_go_on_where_they_were(
    several: list[LoadedEngines], tmp_path: Path
) -> None:
    run, out = quota_run(several[0].bundle, 5, accept_rate=0.6), tmp_path / "parts"
    make(run, several[0], tmp_path / "one", "parquet")

    for stopped in range(12):
        part = Part(stopped % 2, 2)
        writer = open_output(out, run.settings("parquet"), resume=False, shard_size=4, part=part)
        left = writer.done + 5

        def stop(made: float, left: int = left) -> None:
            if made > left:
                raise KeyboardInterrupt

        try:
            execute(run, several[0], writer, 3, stop, patience=0)
        except (KeyboardInterrupt, UserError):
            continue
    make_in_turn(run, several[0], out, "parquet", 2)
    assert_same(out, tmp_path / "one")


def test_a_shorter_budget_ends_all_parts(several: list[LoadedEngines], tmp_path: Path) -> None:
    run = quota_run(several[0].bundle, 9, count=10, threshold=1.0)
    make(run, several[0], tmp_path / "one", "parquet")
    for number in 0, 1:
        make(run, several[0], tmp_path / "parts", "parquet", Part(number, 2), patience=0)
    assert_same(tmp_path / "parts", tmp_path / "one")
