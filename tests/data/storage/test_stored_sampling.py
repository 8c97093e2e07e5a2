"""`--out s3://…`: the commands on a store."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

import synfer_rt
from synfer_rt.bundle import Bundle
from synfer_rt.commands.cli import main
from synfer_rt.data.card_files import CARD, HEADER
from synfer_rt.data.contact_sheet import FILE as SHEET
from synfer_rt.data.writers import run_file, working_copy
from synfer_rt.jobs.skipped import FILE as SKIPPED
from tests.commands.test_cli import refused
from tests.data.storage.conftest import Bucket
from tests.data.writers.test_parts import files

OPTIONS = ("--count", "22", "--shard-size", "4", "--batch", "5")


def run(*words):
    return CliRunner().invoke(main, list(map(str, words)))


@pytest.fixture
def sample(tiny_bundle_path):
    def invoke(*options, out):
        words = ("--bundle", tiny_bundle_path, "--threads", "1", "--backend", "onnxruntime-cpu")
        return run("sample", *words, "--out", out, *options)

    return invoke


def comparable(found: dict[str, bytes]) -> dict[str, bytes]:
    """The files of a run but for records of shards, and for what ran its engines."""
    settings = json.loads(found["__faces__/run.json"])
    settings.pop(run_file.RAN_ON)
    kept = {key: x for key, x in found.items() if "/records-" not in key}
    return kept | {"__faces__/run.json": json.dumps(settings).encode()}


def assert_same(bucket: Bucket, local: Path) -> None:
    assert comparable(bucket.objects()) == comparable(files(local))


def test_the_small_files_of_a_run_are_known():
    assert set(working_copy.BESIDE) == {SHEET, SKIPPED, CARD}
    assert set(working_copy.AMONG) == {CARD, HEADER}


@pytest.mark.parametrize(
    ("format", "accepting"), [("parquet", ()), ("webdataset", ("--accept-rate", "0.4"))]
)
def test_a_store_gets_what_a_folder_gets(sample, bucket, tmp_path, format, accepting):
    options = (*OPTIONS, "--format", format, *accepting)
    out, local = f"{bucket}/faces", tmp_path / "local"
    assert sample(*options, out=local / "faces").exit_code == 0
    made = sample(*options, out=out)
    assert made.exit_code == 0, made.output
    assert f"{out} holds 22 images; look at {bucket}/__faces__/contact-sheet.html" in made.output
    assert "synfer-rt-" not in made.output  # no temporary folder is named
    assert_same(bucket, local)
    assert run("status", out).exit_code == run("verify", out).exit_code == 0
    shown, there = run("finish", out), run("finish", local / "faces")
    assert shown.output == there.output.replace(str(local), str(bucket))
    assert_same(bucket, local)
    assert "already holds a run; continue it with --resume" in refused(sample(*options, out=out))
    again = sample(*options, "--resume", out=out)
    assert f"{out} already holds all 22 images" in again.output, again.output
    assert_same(bucket, local)


def test_parts_and_commands_on_the_way(sample, bucket, tmp_path):
    options = (*OPTIONS, "--format", "parquet", "--accept-rate", "0.4")
    out, local = f"{bucket}/deep/faces", tmp_path / "local" / "deep"
    assert sample(*options, out=local / "faces").exit_code == 0
    made = sample(*options, "--part", "2/3", out=out)
    assert f"not made yet: 4 (synfer-rt status {out})" in made.output, made.output
    assert "deep/__faces__/undecided-000002.tar" in bucket.objects()
    assert sample(*options, "--part", "0/3", out=out).exit_code == 0
    shown = run("status", out)
    assert shown.exit_code == 1 and f"{out}: parquet, 22 images" in shown.output
    assert "missing  2: 1, 4\n" in shown.output and "; last written " in shown.output
    said = refused(run("finish", out))
    assert f"{out} lacks 2 of 6 shards (missing: 1, 4)" in said and "synfer-rt-" not in said
    assert run("verify", out).exit_code == 1
    assert sample(*options, "--resume", out=out).exit_code == 0
    found = {key.removeprefix("deep/"): x for key, x in bucket.objects().items()}
    assert comparable(found) == comparable(files(local))


def test_a_plan_is_written_to_a_store(tiny_bundle: Bundle, bucket, tmp_path):
    plan = {
        "count": 12,
        "classes": {"shares": "raf-db"},
        "shard_size": 4,
        "format": "parquet",
        "splits": {"train": 0.7, "validation": 0.3},
    }
    model = synfer_rt.load(tiny_bundle.path, backend="onnxruntime-cpu", threads=1)
    written = model.write_plan(plan, f"{bucket}/faces")
    assert [str(one.path) for one in written] == [
        f"{bucket}/faces/{name}" for name in ("train", "validation")
    ]
    model.write_plan(plan, tmp_path / "faces")
    local, stored = files(tmp_path / "faces"), bucket.objects()
    shards = {f"faces/{key}": x for key, x in local.items() if key.endswith(".parquet")}
    assert shards and shards.items() <= stored.items()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ((), "--format imagefolder would make an object of each image"),
        (
            ("--format", "parquet", "--count-accepted"),
            "--count-accepted requests what follows",
        ),
    ],
)
def test_what_a_store_does_not_take_is_refused(sample, bucket, options, said):
    assert said in refused(sample("--count", "4", *options, out=f"{bucket}/faces"))
    assert not bucket.objects()


@pytest.mark.parametrize(
    ("out", "said"),
    [
        ("s3://me:hush@bucket/faces", "credentials"),
        ("s3://me:hu/sh@bucket/faces", "credentials"),
        ("az://me:hush@box/faces", "az://…@box/faces is an address, not a path"),
        ("s3://", "names no bucket"),
    ],
)
def test_addresses_that_are_refused(sample, out, said):
    told = refused(sample("--format", "parquet", out=out))
    assert said in told and "hu" not in told.replace("https", "")


def test_a_missing_package_is_named(sample, monkeypatch):
    pytest.importorskip("fsspec")
    monkeypatch.setitem(sys.modules, "gcsfs", None)
    told = refused(sample("--format", "parquet", out="gs://bucket/faces"))
    assert "gs://bucket/faces needs the package gcsfs, which is not installed; run" in told


def test_an_imagefolder_that_was_copied_is_refused(sample, bucket, tmp_path):
    assert sample("--count", "2", out=tmp_path / "faces").exit_code == 0
    for key, content in files(tmp_path).items():
        bucket[key] = content
    for command in "status", "verify", "finish":
        assert "is an imagefolder, which is not read" in refused(run(command, f"{bucket}/faces"))


def test_a_card_that_somebody_changed_stays(sample, bucket):
    options = ("--count", "6", "--shard-size", "4", "--format", "webdataset")
    assert sample(*options, out=f"{bucket}/faces").exit_code == 0
    bucket["faces/README.md"] = b"Mine."
    del bucket["faces/000001.tar"]
    made = sample(*options, "--resume", out=f"{bucket}/faces")
    assert made.exit_code == 0, made.output
    assert bucket["faces/README.md"] == b"Mine."
    assert f"the run's card is {bucket}/__faces__/README.md" in made.output
    assert bucket["__faces__/README.md"].startswith(b"---\n")
