"""`--part`, `status` and `finish`: one dataset by several commands."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from synfer_rt.commands.cli import main
from synfer_rt.data.datasets import read_dataset
from synfer_rt.data.writers import FORMATS, read, run_file
from synfer_rt.data.writers.decisions import UndecidedFiles
from synfer_rt.errors import UserError
from synfer_rt.jobs.destination import Destination
from tests.commands.test_cli import refused
from tests.data.writers.test_parts import files
from tests.jobs.long_tail import write_long_tail

OPTIONS = ("--count", "22", "--shard-size", "4", "--batch", "5")
ACCEPTING = [("--threshold", "0.3"), ("--accept-rate", "0.4")]


def run(*words):
    return CliRunner().invoke(main, list(map(str, words)))


@pytest.fixture(scope="module")
def long_tail_folder(tmp_path_factory):
    return write_long_tail(tmp_path_factory.mktemp("long-tail"))


def stopping_at(images: int):
    """A progress bar that interrupts its command after so many images."""

    def show(bar, progress):
        if progress.done > images:
            raise KeyboardInterrupt

    return show


def settings(out: Path):
    """The settings of a run but for what ran its engines."""
    return {k: v for k, v in run_file.load(out).items() if k != run_file.RAN_ON}


@pytest.mark.parametrize("accepting", ACCEPTING, ids=str)
@pytest.mark.parametrize("format", FORMATS)
def test_parts_make_the_dataset_of_one_command(sample, tmp_path, format, accepting):
    one, parts = tmp_path / "one", tmp_path / "parts"
    options = (*OPTIONS, *accepting, "--format", format)
    assert sample(*options, out=one).exit_code == 0
    for number, missing in ((2, 4), (0, 2)):
        made = sample(*options, "--part", f"{number}/3", out=parts)
        assert made.exit_code == 0, made.output
        assert f"Shards that other parts have not made yet: {missing} (" in made.output
    shown = run("status", parts)
    assert shown.exit_code == 1
    assert "22 images, 6 shards of 4 images\nthere    4 (14 images)\n" in shown.output
    assert "missing  2: 1, 4\n" in shown.output and "images/s" in shown.output
    assert "lacks 2 of 6 shards (missing: 1, 4)" in refused(run("finish", parts))
    made = sample(*options, "--part", "1/3", out=parts)
    assert f"{parts} holds 22 images; look at" in made.output, made.output
    assert files(parts) == files(one)
    sheets = [run_file.folder(out) / "contact-sheet.html" for out in (one, parts)]
    assert sheets[1].read_text() == sheets[0].read_text().replace(">one<", ">parts<")
    names = [{path.name for path in run_file.folder(out).iterdir()} for out in (one, parts)]
    assert names[0] == names[1] and settings(one) == settings(parts)
    assert run("verify", parts).exit_code == run("status", parts).exit_code == 0
    again = sample(*options, "--part", "1/3", out=parts)
    assert again.exit_code == 0 and "already holds all 22 images" in again.output


@pytest.mark.parametrize("format", FORMATS)
def test_decisions_do_not_depend_on_who_makes_the_shards(sample, tmp_path, format, monkeypatch):
    one, parts = tmp_path / "one", tmp_path / "parts"
    options = (*OPTIONS, "--accept-rate", "0.4", "--format", format)
    assert sample(*options, out=one).exit_code == 0
    accepted = [record["accepted"] for record, _ in read(one)]
    assert 0 < sum(accepted) < len(accepted)
    with monkeypatch.context() as patch:  # one process begins, and is stopped after two shards
        patch.setattr("synfer_rt.commands.progress.ProgressBar.__call__", stopping_at(11))
        assert sample(*options, out=parts).exit_code == 130
    assert sample(*options, "--part", "1/2", out=parts).exit_code == 0
    with pytest.raises(UserError, match="not finished"):
        read_dataset(parts)
    assert sample(*options, "--resume", out=parts).exit_code == 0
    assert files(parts) == files(one)
    names = [{path.name for path in run_file.folder(out).iterdir()} for out in (one, parts)]
    assert names[0] == names[1]


def test_a_shard_that_is_lost_later_is_decided_as_before(sample, tmp_path):
    options = (*OPTIONS, "--accept-rate", "0.4", "--format", "webdataset")
    assert sample(*options, "--part", "0/1").exit_code == 0
    before = files(tmp_path / "out")
    (tmp_path / "out/000002.tar").unlink()
    assert sample(*options, "--part", "0/2").exit_code == 0
    assert files(tmp_path / "out") == before


def test_finish_goes_on_where_a_process_was_killed_that_decided(sample, tmp_path, monkeypatch):
    options = (*OPTIONS, "--accept-rate", "0.4", "--format", "parquet")
    assert sample(*options, out=tmp_path / "one").exit_code == 0

    def killed(shards, number, decide):
        if number == 3:
            raise KeyboardInterrupt
        write(shards, number, decide)

    write = UndecidedFiles._write
    with monkeypatch.context() as patch:
        patch.setattr(UndecidedFiles, "_write", killed)
        assert sample(*options, "--part", "0/1").exit_code == 130
    out = tmp_path / "out"
    shown = run("status", out)
    assert shown.exit_code == 1 and f"finish it with synfer-rt finish {out}" in shown.output
    assert run("finish", out).exit_code == 0
    assert files(out) == files(tmp_path / "one") and run("status", out).exit_code == 0


def test_a_shard_that_is_damaged_before_it_is_decided_is_not_published(sample, tmp_path):
    options = (*OPTIONS, "--accept-rate", "0.4", "--format", "webdataset")
    assert sample(*options, "--part", "0/2").exit_code == 0
    shard = run_file.folder(tmp_path / "out") / "undecided-000002.tar"
    whole = shard.read_bytes()
    shard.write_bytes(whole.replace(b'{"file_name": "00000009', b'["file_name": "00000009'))
    assert shard.read_bytes() != whole
    assert f"{shard} is damaged; remove it" in refused(sample(*options, "--part", "1/2"))
    shard.unlink()
    assert sample(*options, "--part", "0/2").exit_code == 0
    assert run("verify", tmp_path / "out").exit_code == 0


def test_finish_counts_what_all_parts_have_made(sample, tmp_path):
    out = tmp_path / "parts"
    for number in range(2):
        assert sample(*OPTIONS, "--part", f"{number}/2", out=out).exit_code == 0
    sheet = run_file.folder(out) / "contact-sheet.html"
    sheet.unlink()
    result = run("finish", out)
    assert result.exit_code == 0, result.output
    records = [json.loads(line) for line in (out / "metadata.jsonl").read_text().splitlines()]
    accepted = sum(record["accepted"] for record in records)
    assert ["all", "22", str(accepted)] in [line.split()[:3] for line in result.output.splitlines()]
    assert f"{out} holds 22 images; look at {sheet}" in result.output and sheet.exists()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--part", "8"], "--part must be written K/N with K from 0 to N - 1"),
        (["--part", "8/8"], "--part must be two whole numbers K and N with K from 0 to N - 1"),
        (["--part", "0/0"], "got 0/0."),
        (["--part", "0/2", "--wait", "-1"], "--wait must be from 0 to"),
        (["--part", "0/2", "--mix-backends"], "--resume"),
    ],
)
def test_what_cannot_be_a_part_is_one_sentence(sample, tmp_path, options, said):
    assert said in refused(sample("--count", "4", *options))
    assert not (tmp_path / "out").exists()


def test_a_part_with_other_settings_is_refused_by_name(sample, tmp_path):
    assert sample("--count", "4", "--part", "0/2").exit_code == 0
    for option, said in (("--seed", "seed: 0, now 7"), ("--shard-size", "shard size: 10000, now")):
        assert said in refused(sample("--count", "4", "--part", "1/2", option, "7"))


def test_a_part_that_computes_differently_is_refused_even_if_it_comes_second(
    sample, tmp_path, monkeypatch
):
    assert sample(*OPTIONS, "--part", "0/2").exit_code == 0
    path = run_file.path(tmp_path / "out")
    path.write_text(path.read_text().replace('"runtime": "', '"runtime": "other '))
    assert "runtime other onnxruntime" in refused(sample(*OPTIONS, "--part", "1/2"))
    # As if no run had been there when the command began.
    monkeypatch.setattr(Destination, "begun", None)
    assert "runtime other onnxruntime" in refused(sample(*OPTIONS, "--part", "1/2"))


def test_a_plan_is_made_in_parts(sample, tmp_path):
    plan, one, parts = tmp_path / "plan.toml", tmp_path / "one", tmp_path / "parts"
    plan.write_text(
        'count = 14\nclasses.shares = "raf-db"\nshard_size = 4\nformat = "parquet"\n'
        "[splits]\ntrain = 0.7\nvalidation = 0.3\n"
    )
    assert sample("--plan", str(plan), out=one).exit_code == 0
    for number in 1, 0:
        result = sample("--plan", str(plan), "--part", f"{number}/2", out=parts)
        assert result.exit_code == 0, result.output
    assert files(parts / "train") == files(one / "train")
    assert files(parts / "validation") == files(one / "validation")
    for command in "status", "finish", "verify":
        said = refused(run(command, parts))
        assert f"give one of them: {parts / 'train'}, {parts / 'validation'}." in said
        assert run(command, parts / "validation").exit_code == 0


def test_a_part_may_have_no_shard(sample, tmp_path):
    result = sample("--count", "4", "--part", "1/2")
    assert result.exit_code == 0, result.output
    assert (
        "This part has its 0 images. Shards that other parts have not made yet: 1 ("
        in result.output
    )
    assert sample("--count", "4", "--part", "0/2").exit_code == 0
    assert len(list(read(tmp_path / "out"))) == 4


@pytest.mark.parametrize("format", FORMATS)
def test_status_knows_what_augment_writes(tiny_bundle_path, long_tail_folder, tmp_path, format):
    words = ("augment", long_tail_folder, "--out", tmp_path / "out", "--format", format)
    words += ("--bundle", tiny_bundle_path, "--backend", "onnxruntime-cpu", "--threads", "1")
    result = run(*words, "--attempts", "1", "--shard-size", "5")
    assert result.exit_code == 0, result.output
    shown = run("status", tmp_path / "out")
    assert shown.exit_code == 0 and "shards of 5 images" in shown.output, shown.output
    assert "is not made in parts" in refused(run("finish", tmp_path / "out"))


def test_status_and_finish_need_a_run(tmp_path):
    for command in "status", "finish":
        assert "holds no run of synfer-rt" in refused(run(command, tmp_path))


def test_an_interrupted_part_says_how_to_go_on(sample, monkeypatch):
    monkeypatch.setattr("synfer_rt.commands.progress.ProgressBar.__call__", stopping_at(6))
    result = sample(*OPTIONS, "--part", "0/2")
    assert result.exit_code == 130
    assert "of 12 images written; run the same again" in result.output


@pytest.mark.parametrize("format", FORMATS)
def test_parts_with_quotas_wait_for_each_other_or_say_for_what(sample, tmp_path, format):
    one, parts, result = tmp_path / "one", tmp_path / "parts", None
    quota = ("--count", "2", "--count-accepted", "--budget", "40", "--shard-size", "5")
    options = (*quota, "--accept-rate", "0.6", "--labels", "sad,fear,happy", "--format", format)
    assert sample(*options, out=one).exit_code == 0
    waiting = [*options, "--wait", "0"]
    said = refused(sample(*waiting, "--part", "1/2", out=parts))
    assert "depends on shard 0, which other parts make" in said
    for turn in range(20):
        result = sample(*waiting, "--part", f"{turn % 2}/2", out=parts)
        if "holds" in result.output:
            break
        assert "run those parts, then this one again" in refused(result)
    assert result is not None
    assert f"{parts} holds {run_file.count(run_file.load(one))} images" in result.output
    assert files(parts) == files(one) and settings(parts) == settings(one)
    assert run("verify", parts).exit_code == run("status", parts).exit_code == 0
    assert "already holds" in sample(*waiting, "--part", "0/2", out=parts).output


def test_the_last_part_says_which_accepted_images_are_missing(sample, tmp_path):
    quota = ("--count", "3", "--count-accepted", "--budget", "7", "--shard-size", "4")
    options = (*quota, "--threshold", "1", "--labels", "sad,fear", "--format", "webdataset")
    assert "are missing" not in sample(*options, "--part", "0/2").output
    said = sample(*options, "--part", "1/2").output
    assert (
        "The budget of 7 images is used up, and accepted images are missing: sad 3, fear 3" in said
    )
