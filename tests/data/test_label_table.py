"""The table that `label` writes: whole or not there, resumable, each image exactly once."""

from __future__ import annotations

import csv
import errno
import json
import os
import sys
from pathlib import Path
from typing import Any

import pytest

from synfer_rt.data.label_table import Table
from synfer_rt.data.writers.atomic import partial
from synfer_rt.errors import UserError

FORM: dict[str, Any] = {
    "index": 0,
    "file_name": "",
    "label": "",
    "asked": False,
    "accepted": False,
    "rectified": False,
    "given_label": "",
    "written_label": "",
    "label_problem": "",
    "error": "",
    "label_scheme": "affectnet-8",
    "bundle": "0123abcd",
    "backend": "onnxruntime-cpu",
    "probabilities": {"sad": 0.0},
    "votes": {"classifier.small": ""},
    "aus": {"AU12": -1.0},
}
SAID = FORM | {"file_name": "a.png", "label": "sad", "probabilities": {"sad": 1.0}}


def test_a_table_that_is_there_needs_resume(tmp_path: Path):
    Table(tmp_path / "t.jsonl", {"a": 1}, FORM, False).close()
    with pytest.raises(UserError, match="`resume=True`"):
        Table(tmp_path / "t.jsonl", {"a": 1}, FORM, False)


def test_a_table_that_was_begun_with_other_settings_is_refused(tmp_path: Path):
    Table(tmp_path / "t.jsonl", {"accept_rate": 0.5}, FORM, False).close()
    with pytest.raises(UserError, match="another accept rate"):
        Table(tmp_path / "t.jsonl", {"accept_rate": 0.7}, FORM, True)


def test_a_finished_table_with_other_settings_is_refused(tmp_path: Path):
    Table(tmp_path / "t.csv", {"threshold": 0.5}, FORM, False).finish()
    assert Table(tmp_path / "t.csv", {"threshold": 0.5}, FORM, True).finished
    with pytest.raises(UserError, match="another threshold"):
        Table(tmp_path / "t.csv", {"threshold": 0.7}, FORM, True)


def test_a_finished_csv_with_the_former_name_of_feranno_is_read(tmp_path: Path):
    form = {**FORM, "votes": {"classifier.small": "", "feranno": ""}}
    votes = {"classifier.small": "sad", "feranno": "happy"}
    table = Table(tmp_path / "t.csv", {}, form, False)
    table.write([{**SAID, "votes": votes}])
    table.finish()
    text = (tmp_path / "t.csv").read_text()
    (tmp_path / "t.csv").write_text(text.replace("vote.feranno", "vote.annotator"))
    (line,) = Table(tmp_path / "t.csv", {}, form, True).records()
    assert line["votes"] == votes


@pytest.mark.parametrize("kept", [None, "torn", "[" * 100_000])
def test_a_finished_table_without_settings_is_refused(tmp_path: Path, kept: str | None):
    (tmp_path / "t.csv").write_text("file_name,label\n")
    if kept:
        (tmp_path / "t.csv.run.json").write_text(kept)
    with pytest.raises(UserError, match="choose another `out`"):
        Table(tmp_path / "t.csv", {}, FORM, True)


@pytest.mark.parametrize(
    "odd",
    [
        "[1]",
        "[" * 100_000,
        '{"b": 2}',
        '{"index": 0}',
        json.dumps(SAID | {"index": 1}),
        json.dumps(SAID | {"index": False}),
        json.dumps(SAID | {"file_name": ""}),
        json.dumps(SAID | {"label": ""}),
        json.dumps(SAID | {"label": "fear"}),
        json.dumps(SAID | {"label": ["sad"]}),
        json.dumps(SAID | {"error": None}),
        json.dumps(SAID | {"probabilities": {"sad": 1}}),
        json.dumps(SAID | {"probabilities": {"fear": 1.0}}),
        json.dumps(SAID | {"aus": None}),
        json.dumps({name: value for name, value in SAID.items() if name != "votes"}),
        json.dumps(SAID | {"more": 0}),
    ],
)
def test_an_odd_line_counts_as_torn(tmp_path: Path, odd: str):
    path = tmp_path / "t.jsonl"
    Table(path, {"a": 1}, FORM, False).close()
    with partial(path).open("a") as journal:
        journal.write(f"{odd}\n")
    table = Table(path, {"a": 1}, FORM, True)
    assert table.done == 0 and partial(path).read_text() == '{"a": 1}\n'
    table.close()


@pytest.mark.parametrize("line", [SAID, FORM | {"file_name": "a.png", "error": "no image"}])
def test_a_whole_line_is_kept(tmp_path: Path, line: dict[str, Any]):
    path = tmp_path / "t.jsonl"
    table = Table(path, {"a": 1}, FORM, False)
    table.write([line])
    table.close()
    table = Table(path, {"a": 1}, FORM, True)
    assert table.done == 1 and list(table.records()) == [line]
    table.close()


def test_a_journal_that_begins_with_an_odd_line_is_begun_anew(tmp_path: Path):
    partial(tmp_path / "t.jsonl").write_text("[" * 100_000 + '\n{"index": 0}\n')
    table = Table(tmp_path / "t.jsonl", {"a": 1}, FORM, True)
    assert table.done == 0
    table.close()


def test_a_place_that_cannot_be_looked_at_is_one_sentence(tmp_path: Path):
    with pytest.raises(UserError, match="choose a shorter path"):
        Table(tmp_path / ("a" * 300 + ".csv"), {}, FORM, False)


def test_a_kill_after_the_renaming_leaves_nothing(tmp_path: Path):
    path = tmp_path / "t.jsonl"
    Table(path, {}, FORM, False).finish()
    partial(path).write_text("{}\n")
    assert Table(path, {}, FORM, True).finished
    assert sorted(file.name for file in tmp_path.iterdir()) == ["t.jsonl", "t.jsonl.run.json"]


def test_two_runs_cannot_grow_one_table(tmp_path: Path):
    table = Table(tmp_path / "t.jsonl", {}, FORM, False)
    with pytest.raises(UserError, match="Another synfer-rt"):
        Table(tmp_path / "t.jsonl", {}, FORM, True)
    table.close()


@pytest.mark.skipif(sys.platform == "win32", reason="needs POSIX limits")
def test_a_full_disk_is_one_sentence(tmp_path: Path):
    import resource

    table = Table(tmp_path / "t.jsonl", {}, FORM, False)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, hard))
    try:
        with pytest.raises(UserError, match="raise the limit on file sizes"):
            table.write([{"index": i} for i in range(400)])  # what does not fit is kept
        with pytest.raises(UserError, match="raise the limit on file sizes"):
            table.close()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_disk_without_space_is_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    table = Table(tmp_path / "t.jsonl", {}, FORM, False)
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(UserError, match="free some space"):
        table.write([{"index": 0}])
        table.finish()


def test_another_suffix_is_refused(tmp_path: Path):
    with pytest.raises(UserError, match=r"\.jsonl or \.csv"):
        Table(tmp_path / "t.xlsx", {}, FORM, False)


def test_a_csv_has_the_columns_of_earlier_releases(tmp_path: Path):
    table = Table(tmp_path / "t.csv", {}, FORM, False)
    table.write([SAID])
    table.finish()
    header, row = csv.reader((tmp_path / "t.csv").read_text().splitlines())
    assert header == [*list(FORM)[:13], "sad", "vote.classifier.small", "AU12"]
    assert row[:4] == ["0", "a.png", "sad", "False"] and row[-3:] == ["1.0", "", "-1.0"]
