"""Where a run may be written: new and empty directories, and runs that it continues."""

from __future__ import annotations

import os
import shutil
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from synfer_rt.data.writers import FORMATS, check_output, discard_empty, open_output, read, run_file
from synfer_rt.errors import UserError
from tests.data.writers.small_run import assert_complete, final_files, finished, open_run

pytestmark = pytest.mark.parametrize("format", FORMATS)


def test_asking_whether_a_run_is_there_writes_nothing(run, tmp_path, format):
    settings = run.settings(format)
    assert not check_output(tmp_path / "out", settings, resume=True)
    assert not (tmp_path / "out").exists()
    open_output(tmp_path / "out", settings, resume=False).close()
    assert check_output(tmp_path / "out", settings, resume=True)


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


def test_a_run_that_is_being_written_is_refused(run, tmp_path, format):
    writer = open_run(run, tmp_path / "out", format)
    run.write(writer, 3)
    with pytest.raises(UserError, match="Another synfer-rt is writing"):
        open_run(run, tmp_path / "out", format, resume=True)
    run.write(writer, 10)
    writer.finish()
    assert_complete(run, list(read(tmp_path / "out")))


def test_an_output_that_exists_is_refused_without_resume(run, tmp_path, format):
    finished(run, tmp_path / "out", format)
    with pytest.raises(UserError, match="`resume=True`"):
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


def test_faces_that_were_found_outlast_a_run_that_is_taken_back(run, tmp_path, format):
    open_run(run, tmp_path / "out", format).close()
    faces = run_file.folder(tmp_path / "out") / run_file.FACES
    faces.touch()
    discard_empty(tmp_path / "out")
    assert list(faces.parent.iterdir()) == [faces]
    assert not run_file.exists(tmp_path / "out")
    assert open_run(run, tmp_path / "out", format).done == 0


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
