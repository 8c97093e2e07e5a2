"""A run in a store has the bytes of the run on a disk, whatever befalls the connections."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from contextlib import closing
from pathlib import Path

import pytest
from onnx import parser

from synfer_rt.api import distill, status, verify
from synfer_rt.bench.faults.proxy import Fault, Proxy
from synfer_rt.data.storage import patience
from synfer_rt.data.writers import Writer, open_output, read, run_file, shards_of
from synfer_rt.data.writers.shards import Part
from synfer_rt.data.writers.working_copy import opened
from synfer_rt.errors import UserError
from synfer_rt.jobs.finish import finish_run
from synfer_rt.jobs.run_status import run_status
from tests.data.storage.conftest import SECRET, Bucket
from tests.data.writers.small_run import SmallRun, assert_complete, finished
from tests.data.writers.test_parts import files

FORMATS = ["webdataset", "parquet"]
NAMES = {"webdataset": "{:06d}.tar", "parquet": "data-{:05d}.parquet"}
by_format = pytest.mark.parametrize("format", FORMATS)
by_one = pytest.mark.parametrize(
    "format", ["webdataset", pytest.param("parquet", marks=pytest.mark.slow)]
)

SLOW_RUN = """
import sys, time
sys.path.insert(0, {tests!r})
from small_run import SmallRun
from synfer_rt.data.writers import open_output
from synfer_rt.data.writers.working_copy import opened
run = SmallRun()
with opened(sys.argv[1]) as place:
    settings = run.settings(sys.argv[2], 30)
    writer = open_output(place.path, settings, resume=False, shard_size=4)
    for index in writer.lacking:
        writer.write([run.record(index)], [run.png(index)])
        print(index, flush=True)
        time.sleep(0.01)
    writer.finish()
"""


def open_run(run: SmallRun, out: Path, format: str, count: int, part: Part | None = None) -> Writer:
    settings = run.settings(format, count)
    return open_output(out, settings, resume=True, shard_size=run.shard_size, part=part)


def make(
    run: SmallRun, address: str, format: str, part: Part | None = None, count: int = 10
) -> Writer:
    """Make the run at an address, or a part of it."""
    with opened(address) as place:
        writer = open_run(run, place.path, format, count, part)
        for index in writer.lacking:
            writer.write([run.record(index)], [run.png(index)])
        writer.finish()
    return writer


def assert_as_local(
    run: SmallRun, bucket: Bucket, tmp_path: Path, format: str, count: int = 10
) -> None:
    """The bucket has the objects that a local run has as files, and a file of records a shard."""
    finished(run, tmp_path / "local" / "faces", format, count)
    shards = range(-(-count // run.shard_size))
    records = {f"__faces__/records-{n:05d}.jsonl" for n in shards}
    objects = bucket.objects()
    assert objects.keys() >= records
    assert {key: x for key, x in objects.items() if key not in records} == files(tmp_path / "local")
    assert not verify(f"{bucket}/faces").faults
    assert not bucket.uploads()


@by_format
def test_one_process_writes_what_it_writes_on_a_disk(run, bucket, tmp_path, format):
    make(run, f"{bucket}/faces", format)
    assert_as_local(run, bucket, tmp_path, format)
    with opened(f"{bucket}/faces") as place:
        assert_complete(run, list(read(place.path)))
        assert run_status(place.path).finished


@by_format
def test_parts_in_any_order_write_the_same(run, bucket, tmp_path, format):
    missing = [make(run, f"{bucket}/faces", format, Part(k, 3)).missing for k in (2, 0, 1)]
    assert missing == [2, 1, 0]
    assert_as_local(run, bucket, tmp_path, format)


def test_parts_at_once_agree_on_the_run(run, bucket, tmp_path):
    threads = [
        threading.Thread(target=make, args=(run, f"{bucket}/faces", "webdataset", Part(k, 3)))
        for k in range(3)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert_as_local(run, bucket, tmp_path, "webdataset")


def test_a_run_may_fill_a_bucket(run, bucket):
    make(run, str(bucket), "webdataset")
    keys = bucket.objects().keys()
    assert {"000000.tar", "000002.tar", "__run__/run.json", "__run__/records-00000.jsonl"} <= keys
    assert status(str(bucket)).finished and not verify(str(bucket)).faults
    assert str(status(str(bucket)).path) == str(bucket)


@by_one
def test_a_shard_that_is_there_is_never_put_again(run, bucket, format):
    make(run, f"{bucket}/faces", format, Part(0, 2))
    before = bucket.versions()
    key = f"faces/{NAMES[format].format(0)}"
    with opened(f"{bucket}/faces") as first:
        writer = open_run(run, first.path, format, 10)
        assert list(writer.lacking) == [4, 5, 6, 7]
        make(run, f"{bucket}/faces", format, Part(1, 2))  # meanwhile
        when = bucket.versions()
        for index in writer.lacking:
            writer.write([run.record(index)], [run.png(index)])
        writer.finish()
    after = bucket.versions()
    assert before[key] == after[key]
    assert {k: t for k, t in after.items() if "records" not in k} == {
        k: t for k, t in when.items() if "records" not in k
    }


@by_one
def test_a_damaged_shard_is_seen_and_made_again(run, bucket, tmp_path, format):
    make(run, f"{bucket}/faces", format)
    key = f"faces/{NAMES[format].format(1)}"
    whole = bucket[key]
    bucket[key] = whole[: len(whole) // 2]
    found = status(f"{bucket}/faces")
    assert (found.there, found.damaged, found.missing) == ((0, 2), (1,), ())
    assert any(NAMES[format].format(1) in fault.place for fault in verify(f"{bucket}/faces").faults)
    with opened(f"{bucket}/faces") as place, pytest.raises(UserError, match=r"damaged: 1"):
        finish_run(place.path)
    make(run, f"{bucket}/faces", format)
    assert bucket[key] == whole
    assert_as_local(run, bucket, tmp_path, format)


@by_format
def test_a_shard_under_the_name_of_another_is_seen(run, bucket, format):
    make(run, f"{bucket}/faces", format)
    for number in 1, 2:  # as long as the first, and shorter
        bucket[f"faces/{NAMES[format].format(number)}"] = bucket[f"faces/{NAMES[format].format(0)}"]
    assert status(f"{bucket}/faces").damaged == (1, 2)


@by_one
def test_records_that_are_gone_are_read_from_the_shard(run, bucket, tmp_path, format):
    make(run, f"{bucket}/faces", format)
    del bucket["__faces__/records-00001.jsonl"]
    bucket["__faces__/records-00002.jsonl"] = bucket["__faces__/records-00002.jsonl"][:-50]
    with opened(f"{bucket}/faces") as place:
        shards = shards_of(place.path, run_file.load(place.path))
        assert [r["index"] for r in shards.records(range(3))] == list(range(10))
        shards.close()


def test_what_is_too_much_or_missing_is_told(run, bucket):
    make(run, f"{bucket}/faces", "webdataset")
    bucket["faces/notes.txt"] = b"x"
    bucket["faces/more/x.png"] = b"x"
    bucket["faces/README.md"] = b"mine"
    del bucket["faces/000001.tar"]
    faults = {fault.place: fault.problem for fault in verify(f"{bucket}/faces").faults}
    assert faults["000001.tar"] == "it is missing"
    assert faults["notes.txt"] == faults["more/"] == "it is not a shard of the run"
    assert "4 of 10 images are missing: 4 to 7" in faults[f"{bucket}/faces"]
    assert "README.md" not in faults


def test_a_process_that_is_killed_leaves_whole_shards_alone(run, bucket, tmp_path):
    script = SLOW_RUN.format(tests=str(Path(__file__).parent.parent / "writers"))
    command = [sys.executable, "-c", script, f"{bucket}/faces", "webdataset"]
    environment = {**os.environ, "TMPDIR": str(tmp_path), "PYTHONPATH": os.pathsep.join(sys.path)}
    killed = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)
    assert killed.stdout is not None
    while killed.stdout.readline() != "13\n":  # in the middle of its fourth shard
        assert killed.poll() is None
    killed.send_signal(signal.SIGKILL)
    assert killed.wait() == -signal.SIGKILL
    killed.stdout.close()
    there = status(f"{bucket}/faces").there
    assert there == (0, 1, 2)
    before = bucket.versions()
    make(run, f"{bucket}/faces", "webdataset", count=30)
    after = bucket.versions()
    assert all(after[f"faces/00000{n}.tar"] == before[f"faces/00000{n}.tar"] for n in there)
    assert_as_local(run, bucket, tmp_path, "webdataset", 30)


FAULTS = {
    "cut while sending": [Fault(up=n) for n in (100, 3000, 9000, 0, 15000)],
    "cut while receiving": [Fault(down=n) for n in (50, 300, 0, 700)],
    "late": [Fault(late=0.2), Fault(late=0.2)],
    "slow down": [Fault(unavailable=True)] * 3,
}


@pytest.mark.parametrize("kind", FAULTS)
def test_a_network_that_fails_changes_nothing(run, bucket, proxy, tmp_path, kind):
    for part in range(2):
        proxy.cut()
        proxy.faults.extend(FAULTS[kind])
        make(run, f"{bucket}/faces", "webdataset", Part(part, 2))
        assert not proxy.faults
    assert_as_local(run, bucket, tmp_path, "webdataset")


def test_a_store_that_is_away_for_a_while_is_waited_for(run, bucket, proxy, tmp_path, caplog):
    with opened(f"{bucket}/faces") as place:
        writer = open_run(run, place.path, "parquet", 10)
        for index in writer.lacking:
            if index == 3:  # before the first shard is put
                proxy.go()
                threading.Timer(0.8, proxy.come).start()
            writer.write([run.record(index)], [run.png(index)])
        writer.finish()
    assert "does not answer" in caplog.text and SECRET not in caplog.text
    assert_as_local(run, bucket, tmp_path, "parquet")


def test_a_store_that_stays_away_ends_the_run_and_loses_nothing(
    run, bucket, proxy, tmp_path, monkeypatch
):
    monkeypatch.setattr(patience, "PATIENCE", 0.5)
    with (
        pytest.raises(UserError, match="has not answered for 0 seconds"),
        opened(f"{bucket}/faces") as place,
        closing(open_run(run, place.path, "webdataset", 10)) as writer,
    ):
        for index in writer.lacking:
            if index == 7:
                proxy.go()
            writer.write([run.record(index)], [run.png(index)])
    proxy.come()
    assert status(f"{bucket}/faces").there == (0,)
    make(run, f"{bucket}/faces", "webdataset")
    assert_as_local(run, bucket, tmp_path, "webdataset")


def test_no_answer_at_the_very_end_of_a_put_is_no_second_object(run, bucket, proxy, tmp_path):
    """The object is there, but its maker was not told: the next try finds it."""
    with opened(f"{bucket}/faces") as place:
        writer = open_run(run, place.path, "webdataset", 10)
        for index in writer.lacking:
            if index % 4 == 3:
                proxy.cut()
                proxy.faults.append(Fault(down=0))
            writer.write([run.record(index)], [run.png(index)])
        writer.finish()
    assert_as_local(run, bucket, tmp_path, "webdataset")


def test_other_settings_are_refused_by_the_address(run, bucket):
    make(run, f"{bucket}/faces", "webdataset", Part(0, 2))
    with pytest.raises(UserError, match=rf"^{bucket}/faces was begun with another count"):
        make(run, f"{bucket}/faces", "webdataset", Part(1, 2), count=11)


def test_objects_of_others_are_no_run(run, bucket):
    bucket["faces/photo.png"] = b"x"
    with pytest.raises(
        UserError, match=r"holds photo.png, but no run .*/__faces__/run.json is miss"
    ):
        make(run, f"{bucket}/faces", "webdataset")
    assert bucket.objects().keys() == {"faces/photo.png"}


def test_a_bucket_that_is_not_there_is_named(run, bucket):
    for use in (lambda x: make(run, x, "webdataset"), status, verify):
        with pytest.raises(UserError, match="There is no bucket s3://nobodys-bucket"):
            use("s3://nobodys-bucket/faces")


def test_without_credentials_it_says_so(run, bucket, monkeypatch):
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setattr("s3fs.S3FileSystem._cache", {})
    with pytest.raises(UserError, match="There are no credentials for s3://"):
        make(run, f"{bucket}/faces", "webdataset")


def test_a_full_disk_is_this_machines(run, bucket, monkeypatch):
    with opened(f"{bucket}/faces") as place:
        writer = open_run(run, place.path, "webdataset", 10)

        def full(*_: object) -> None:
            raise OSError(28, "No space left on device", str(place.path.parent / "x.partial"))

        monkeypatch.setattr("synfer_rt.data.writers.file_shards._synced", full)
        with pytest.raises(UserError, match=r"Cannot write /.*x.partial \(No space left"):
            writer.write(*zip(*((run.record(i), run.png(i)) for i in range(4)), strict=True))
        writer.close()


def test_nothing_holds_credentials(run, bucket, proxy: Proxy, capfd):
    make(run, f"{bucket}/faces", "webdataset")
    said = capfd.readouterr()
    for text in (*bucket.objects().values(), said.out.encode(), said.err.encode()):
        assert SECRET.encode() not in text and b"AKIA" not in text


def test_a_coreset_is_chosen_of_a_run_in_a_store(run, bucket, tmp_path):
    net = """<ir_version: 8, opset_import: ["" : 17]>
    net (float[B,3,8,8] images) => (float[B,192] pixels) { pixels = Flatten (images) }"""
    (tmp_path / "net.onnx").write_bytes(parser.parse_model(net).SerializeToString())
    settings, chosen = run.sample_settings("webdataset"), {}
    for where in (f"{bucket}/faces", tmp_path / "faces"):
        with opened(where) as place:
            writer = open_output(place.path, settings, resume=False, shard_size=4)
            run.write(writer, 10)
            writer.finish()
        out, features = tmp_path / f"few-{len(chosen)}", (tmp_path / "net.onnx", "8,rgb")
        made = distill(where, count=5, out=out, every=True, features=features)
        chosen[where] = made.table.read_bytes(), files(out)
    assert len({*map(str, chosen.values())}) == 1
    with pytest.raises(UserError, match="`out` must be given for a run in an object store"):
        distill(f"{bucket}/faces", count=5, features=features)
