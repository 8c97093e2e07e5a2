"""A worker without a cluster: it makes single shards of a run, and says what keeps it from that."""

from __future__ import annotations

import pickle
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from synfer_rt.data.writers import run_file
from synfer_rt.data.writers.shards import EVERY
from synfer_rt.engines import default_bundle
from synfer_rt.jobs.destination import Destination
from synfer_rt.jobs.finish import finish_run
from synfer_rt.jobs.sample_settings import make_run
from synfer_rt.ray.worker import Job, Made, ModelSpec, Ready, Refused, Worker
from tests import tiny_bundle as tiny
from tests.commands.test_parts import run as command
from tests.data.writers.test_parts import files

MARK = "driver.by-test.partial"


@pytest.fixture
def job(tiny_bundle, tmp_path):
    """A run of 10 images in shards of 4, and the folder that its driver has marked."""
    out = tmp_path / "out"
    run_file.folder(out).mkdir()
    (run_file.folder(out) / MARK).touch()
    run = make_run(tiny_bundle, count=10, seed=3)
    model = ModelSpec.of(tiny_bundle, "onnxruntime-cpu")
    to = Destination(out, "webdataset", shard_size=4, part=EVERY)
    return Job(run, model, to, 3, 4, MARK)


def worker(job: Job) -> Worker:
    """A worker as another process has it."""
    return pickle.loads(pickle.dumps(Worker(job, 1)))


def test_workers_make_the_dataset_of_one_process(job, tiny_bundle_path, tmp_path):
    one, another = worker(job), worker(job)
    assert isinstance(one.prepare(), Ready) and isinstance(another.prepare(), Ready)
    for number, maker in ((2, one), (0, another), (1, one)):
        made = maker.make(number)
        assert isinstance(made, Made) and made.summary.images == (2 if number == 2 else 4)
        assert maker.made() == made.summary.images
        assert run_file.path(job.to.out).exists()
        assert not (run_file.folder(job.to.out) / "contact-sheet.html").exists()
    again = another.make(2)
    assert isinstance(again, Made) and again.summary.images == 0  # it is there
    assert finish_run(job.to.out).count == 10
    words = ("sample", "--bundle", tiny_bundle_path, "--count", 10, "--seed", 3, "--threads", 1)
    words += ("--backend", "onnxruntime-cpu", "--format", "webdataset", "--shard-size", 4)
    assert command(*words, "--batch", 4, "--out", tmp_path / "one").exit_code == 0
    assert files(job.to.out) == files(tmp_path / "one")


def test_remarks_come_back_with_the_answer(job):
    ready = worker(job).prepare()
    assert isinstance(ready, Ready)
    assert any("on onnxruntime-cpu" in text for _, text in ready.remarks)


def refusal(job: Job) -> str:
    said = worker(job).prepare()
    assert isinstance(said, Refused)
    return said.why


def test_a_machine_that_does_not_see_the_folder_takes_no_part(job):
    shutil.rmtree(run_file.folder(job.to.out))
    assert f"does not see {job.to.out} as the driver does" in refusal(job)
    assert not job.to.out.exists()


def test_a_machine_that_does_not_see_the_bundle_takes_no_part(job, tmp_path):
    there = replace(job.model, path=tmp_path / "elsewhere")
    said = refusal(replace(job, model=there))
    assert "is not a bundle" in said and "All nodes must see the bundle." in said


def test_a_machine_with_another_bundle_takes_no_part(job, tmp_path):
    other = tiny.build(tmp_path / "other", with_classifier=False)
    assert "is not that of the driver" in refusal(
        replace(job, model=replace(job.model, path=other.path))
    )


def test_a_machine_with_another_release_takes_no_part(job):
    assert "install the same on all nodes" in refusal(
        replace(job, model=replace(job.model, release="0.0.1"))
    )


def test_a_machine_that_computes_differently_takes_no_part(job):
    assert isinstance(worker(job).prepare(), Ready)
    path = run_file.path(job.to.out)
    path.write_text(path.read_text().replace('"runtime": "', '"runtime": "other '))
    assert "runtime other onnxruntime" in refusal(job)


def test_a_shard_that_cannot_be_written_says_why(job):
    one = worker(job)
    assert isinstance(one.prepare(), Ready)
    shutil.rmtree(job.to.out)
    job.to.out.write_text("no folder")
    said = one.make(0)
    assert isinstance(said, Refused) and str(job.to.out) in said.why


def test_the_installed_bundle_is_found_wherever_it_is(tiny_bundle, tiny_bundle_path):
    assert ModelSpec.of(tiny_bundle, "auto").path == Path(tiny_bundle_path)
    installed = replace(tiny_bundle, path=default_bundle())
    assert ModelSpec.of(installed, "auto").path is None
