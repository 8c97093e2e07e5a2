"""How far a run is, and how fast, by the times of its shards; and its end."""

from __future__ import annotations

import errno
import os

import pytest

from synfer_rt.data.contact_sheet import write_contact_sheet
from synfer_rt.data.writers import FORMATS, open_output, run_file
from synfer_rt.data.writers.file_shards import FileShards
from synfer_rt.data.writers.shards import Part
from synfer_rt.errors import UserError
from synfer_rt.jobs.card.card import write_card
from synfer_rt.jobs.finish import finish_run
from synfer_rt.jobs.run_status import images_per_second, run_status
from tests.data.writers.small_run import CLASSES, SmallRun, open_run
from tests.data.writers.test_parts import damage, make, write_part

HOUR = 3600.0


@pytest.mark.parametrize(
    ("begun", "finished", "rate"),
    [
        (0.0, [(10.0, 100)], 10.0),
        (0.0, [(10.0, 100), (20.0, 100), (20.0, 100)], 15.0),
        # A night counts for an hour after it, and then no more.
        (0.0, [(10.0, 70), (8 * HOUR, 60), (8 * HOUR + 10, 30)], 90 / (8 * HOUR)),
        (0.0, [(10.0, 70), (8 * HOUR, 60), (9 * HOUR, 3600)], 1.0),
        # Slow shards, and several processes that finish theirs at once.
        (0.0, [(2 * HOUR, 7200), (4 * HOUR, 7200)], 1.0),
        (0.0, [(2 * HOUR, 3600), (2 * HOUR, 3600), (2 * HOUR + 1, 1)], 7201 / (2 * HOUR + 1)),
        (0.0, [(3000.0, 100), (3000.0, 100), (6000.0, 100), (6000.0, 100)], 200 / 3000),
        (0.0, [(50.0, 0)], None),
        (50.0, [(50.0, 10)], None),
    ],
)
def test_the_rate_is_that_of_the_last_hour(begun, finished, rate):
    assert images_per_second(begun, finished) == rate


def test_shards_finished_before_the_last_hour_do_not_count():
    steady = [(10.0 * n, 100) for n in range(1, 1000)]
    assert images_per_second(0, steady) == pytest.approx(10)
    faster = [*steady, *((9990 + n, 100) for n in range(1, 3601))]
    assert images_per_second(0, faster) == pytest.approx(100)


@pytest.mark.parametrize("format", FORMATS)
def test_the_shards_of_a_run_are_there_damaged_or_missing(tmp_path, format):
    run, out = SmallRun(), tmp_path / "out"
    open_run(run, out, format, part=Part(0, 3)).close()
    found = run_status(out)
    assert (found.there, found.damaged, found.missing) == ((), (), (0, 1, 2))
    assert found.images_per_second is None and found.seconds_left is None
    for number in 2, 1:
        make(run, out, format, Part(number, 3))
    damage(out, format)
    begun = run_file.path(out).stat().st_mtime
    os.utime(run_file.path(out), (begun - 10, begun - 10))
    found = run_status(out)
    assert (found.there, found.damaged, found.missing) == ((2,), (1,), (0,))
    assert (found.images, found.count, found.shards, found.shard_size) == (2, 10, 3, 4)
    assert not found.complete and found.idle < 60
    assert found.images_per_second is not None and found.seconds_left is not None
    assert 0 < found.images_per_second <= 0.2
    assert found.seconds_left == pytest.approx(8 / found.images_per_second)


def test_a_run_that_cannot_be_read_is_not_said_to_be_unwritable(tmp_path, monkeypatch):
    def refuse(*_):
        raise OSError(errno.EACCES, os.strerror(errno.EACCES), "000000.tar")

    run, out = SmallRun(), tmp_path / "out"
    make(run, out, "webdataset", Part(0, 1))
    monkeypatch.setattr(FileShards, "is_whole", refuse)
    with pytest.raises(UserError, match=r"000000.tar cannot be read \(Permission denied\); "):
        run_status(out)


@pytest.mark.parametrize("format", FORMATS)
def test_the_shards_that_one_process_makes_are_seen(tmp_path, format):
    run, out = SmallRun(), tmp_path / "out"
    writer = open_run(run, out, format)
    run.write(writer, 9)
    assert run_status(out).there == (0, 1)
    run.write(writer, 10)
    writer.finish()
    assert run_status(out).complete


@pytest.mark.parametrize("format", FORMATS)
def test_a_run_that_lacks_shards_is_not_finished(tmp_path, format):
    run, out = SmallRun(), tmp_path / "out"
    for number in 1, 2:
        make(run, out, format, Part(number, 3))
    damage(out, format)
    before = sorted(path.name for path in run_file.folder(out).iterdir())
    with pytest.raises(UserError, match=r"lacks 2 of 3 shards \(missing: 0; damaged: 1\); run the"):
        finish_run(out)
    assert sorted(path.name for path in run_file.folder(out).iterdir()) == before


def test_a_shard_under_the_name_of_another_is_found(tmp_path):
    run, out = SmallRun(), tmp_path / "out"
    make(run, out, "webdataset", Part(0, 1))
    (out / "000001.tar").write_bytes((out / "000000.tar").read_bytes())
    with pytest.raises(UserError, match=r"Image 4 of .*, in shard 1, has no sound record"):
        finish_run(out)


def test_the_last_parts_do_not_remove_what_each_other_writes_at_the_end(tmp_path, monkeypatch):
    """While one writes the contact sheet and the card, another finishes the run."""
    run, out = SmallRun(), tmp_path / "out"
    writer = open_output(out, run.sample_settings("webdataset"), resume=False, part=Part(0, 1))
    write_part(run, writer)
    writer.finish()
    synced, removed = os.fsync, []

    def meanwhile(file: int) -> None:
        synced(file)
        removed.extend(path.name for path in run_file.folder(out).glob("*.partial"))
        run_file.clear(out, "*.partial")
        monkeypatch.setattr(os, "fsync", synced)

    for write in (lambda: write_contact_sheet(out, CLASSES), lambda: write_card(out)):
        monkeypatch.setattr(os, "fsync", meanwhile)
        assert write().exists()
    assert [name.partition(".by-")[0] for name in removed] == ["contact-sheet.html", "README.md"]


def test_the_right_directory_is_named_for_one_beside_it(tmp_path):
    run, out = SmallRun(), tmp_path / "faces" / "train"
    make(run, out, "parquet", Part(0, 1))
    with pytest.raises(UserError, match=f"is the own folder of the run in {out}; give that"):
        run_status(run_file.folder(out))
    with pytest.raises(UserError, match=f"holds runs in its folders; give one of them: {out}\\."):
        finish_run(out.parent)


def test_what_augment_wrote_is_not_finished_so(tmp_path):
    run, out = SmallRun(), tmp_path / "out"
    writer = open_run(run, out, "parquet", part=Part(0, 1))
    write_part(run, writer)
    writer.finish()
    path = run_file.path(out)
    path.write_text(path.read_text().replace("{", '{"command": "augment",', 1))
    with pytest.raises(UserError, match="which is not made in parts"):
        finish_run(out)
