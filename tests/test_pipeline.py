"""The pipeline: whole runs of a tiny model."""

from __future__ import annotations

import io
from dataclasses import asdict

import numpy as np
import pytest
from PIL import Image

from synfer_rt import facs, sampler
from synfer_rt.errors import UserError
from synfer_rt.pipeline import ObservedSampler, Run, execute
from synfer_rt.plan import make_plan
from synfer_rt.writers import open_output, read


@pytest.fixture(scope="module")
def observed(tiny_bundle):
    return ObservedSampler(tiny_bundle, "onnxruntime-cpu", threads=1)


@pytest.fixture
def run(tiny_bundle):
    return Run(tiny_bundle, make_plan(tiny_bundle, seed=5), 21, "dpmpp-2m", 4, 0.9)


def output(run, out, resume=False, format="imagefolder"):
    return open_output(out, run.settings(format), resume=resume)


def images(out):
    return [np.asarray(Image.open(io.BytesIO(png)), np.int16) for _, png in read(out)]


def test_every_index_is_made_once_in_order(run, observed, tmp_path):
    summary = execute(run, observed, output(run, tmp_path / "out"), batch=8)
    records = [record for record, _ in read(tmp_path / "out")]
    assert [record["index"] for record in records] == list(range(21))
    assert summary.images == 21


def test_images_do_not_depend_on_the_batch(run, observed, tmp_path):
    execute(run, observed, output(run, tmp_path / "a"), batch=1)
    execute(run, observed, output(run, tmp_path / "b"), batch=64)
    differences = [
        np.abs(a - b).max()
        for a, b in zip(*map(images, (tmp_path / "a", tmp_path / "b")), strict=True)
    ]
    assert len(differences) == 21 and max(differences) <= 2


def test_a_record_says_everything_needed_to_make_its_image_again(run, observed, tmp_path):
    execute(run, observed, output(run, tmp_path / "out"), batch=8)
    from synfer_rt.sampler import Request

    for record, png in list(read(tmp_path / "out"))[::10]:
        request = Request(
            record["index"],
            record["seed"],
            record["requested_label"],
            record["prompt"],
            record["negative_prompt"],
            record["aus"],
            record["guidance"],
            record["au_scale"],
            record["layout"],
        )
        again = Run(
            run.bundle, run.plan, 1, record["solver"], record["steps"], record["layout_strength"]
        )
        (sample,) = observed.sample([request], again.trajectory, 1)
        difference = np.asarray(Image.open(io.BytesIO(png)), np.int16) - sample.image
        assert np.abs(difference).max() <= 2
        assert record["bundle"] == run.bundle.bundle_hash


def test_labels_come_from_the_request_and_acceptance_from_the_classifier(run, observed, tmp_path):
    execute(run, observed, output(run, tmp_path / "out"), batch=8)
    for record, _ in read(tmp_path / "out"):
        assert (
            record["label"] == record["requested_label"] == run.plan.request(record["index"]).label
        )
        probabilities = record["probabilities"]
        assert list(probabilities) == list(run.bundle.classes)
        assert sum(probabilities.values()) == pytest.approx(1, abs=1e-4)
        best = max(probabilities, key=probabilities.__getitem__)
        assert record["accepted"] == (best == record["label"])


def test_the_summary_counts_what_the_records_say(run, observed, tmp_path):
    summary = execute(run, observed, output(run, tmp_path / "out"), batch=8)
    records = [record for record, _ in read(tmp_path / "out")]
    for label in run.plan.labels:
        mine = [record for record in records if record["label"] == label]
        assert summary.requested[label] == len(mine)
        assert summary.accepted[label] == sum(record["accepted"] for record in mine)
    assert sum(summary.accepted.values()) > 0


def test_stage_times_add_up_to_the_run(run, observed, tmp_path):
    summary = execute(run, observed, output(run, tmp_path / "out"), batch=8)
    times = asdict(summary.times)
    assert sum(times.values()) == pytest.approx(summary.seconds)
    assert all(seconds > 0 for seconds in times.values())
    assert summary.images_per_second == pytest.approx(21 / summary.seconds)


def test_progress_rises_to_the_count_by_steps(run, observed, tmp_path):
    told: list[float] = []
    execute(run, observed, output(run, tmp_path / "out"), 8, told.append)
    assert told == sorted(told) and told[-1] == 21
    assert len(told) == 3 * run.steps


def test_progress_counts_a_batch_that_is_sampled_in_pieces(run, tiny_bundle, tmp_path, monkeypatch):
    monkeypatch.setattr(sampler, "_POSITIONS_AT_ONCE", 4 * 64)  # 4 images at once
    observed = ObservedSampler(tiny_bundle, "onnxruntime-cpu", threads=1)
    told: list[float] = []
    execute(run, observed, output(run, tmp_path / "out"), 21, told.append)
    assert len(told) == 6 * run.steps
    assert told[: run.steps] == [1, 2, 3, 4]
    assert told == sorted(told) and told[-1] == 21


def test_an_interrupted_run_keeps_what_was_written_and_resumes(run, observed, tmp_path):
    def interrupt(images: float) -> None:
        if images > 16:
            raise KeyboardInterrupt

    writer = output(run, tmp_path / "out")
    with pytest.raises(KeyboardInterrupt):
        execute(run, observed, writer, 8, interrupt)
    assert writer.done == 16
    resumed = output(run, tmp_path / "out", resume=True)
    assert resumed.done == 16
    assert execute(run, observed, resumed, 8).images == 5
    execute(run, observed, output(run, tmp_path / "whole"), 8)
    together = zip(images(tmp_path / "out"), images(tmp_path / "whole"), strict=True)
    assert max(np.abs(a - b).max() for a, b in together) <= 2


def test_a_disk_error_while_writing_ends_the_run(run, observed, tmp_path):
    writer = output(run, tmp_path / "out")
    (tmp_path / "out/happy").touch()
    with pytest.raises(UserError, match="Cannot write"):
        execute(run, observed, writer, batch=4)


def test_parquet_has_every_column_of_the_record(run, observed, tmp_path):
    execute(run, observed, output(run, tmp_path / "out", format="parquet"), batch=8)
    (sample,) = observed.sample([run.plan.request(1)], run.trajectory, 1)
    record, _ = list(read(tmp_path / "out"))[1]
    assert set(record) == {"file_name", *run.record(sample)}
    units = run.bundle.au_names
    told, asked = (facs.au_vector(r["aus"], units) for r in (record, run.record(sample)))
    np.testing.assert_array_equal(told, asked)


def test_a_batch_below_one_is_refused(run, observed, tmp_path):
    with pytest.raises(UserError, match="1 or more"):
        execute(run, observed, output(run, tmp_path / "out"), batch=0)
