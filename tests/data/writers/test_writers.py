"""What every format promises: what is written is read back, whole or not there."""

from __future__ import annotations

import os

import pytest

from synfer_rt.data.writers import FORMATS
from tests.data.writers.small_run import assert_complete, final_files, finished, open_run

pytestmark = pytest.mark.parametrize("format", FORMATS)


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
