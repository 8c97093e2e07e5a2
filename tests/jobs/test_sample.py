"""The pipeline: whole runs of a tiny model."""

from __future__ import annotations

import io
from dataclasses import asdict

import numpy as np
import pytest
from PIL import Image

from synfer_rt.backends import loaded_engines, open_engine, status
from synfer_rt.backends.loaded_engines import LoadedEngines
from synfer_rt.data.writers import read
from synfer_rt.errors import UserError
from synfer_rt.jobs.sample import execute
from synfer_rt.jobs.sample_run import Run
from synfer_rt.sampling.requests import Request
from synfer_rt.sampling.sampler import Sampler
from synfer_rt.vocabulary import facs
from tests.jobs.runs import images, output


def test_every_index_is_made_once_in_order(run, engines, tmp_path):
    summary = execute(run, engines, output(run, tmp_path / "out"), batch=8)
    records = [record for record, _ in read(tmp_path / "out")]
    assert [record["index"] for record in records] == list(range(21))
    assert summary.images == 21


def test_images_do_not_depend_on_the_batch(run, engines, tmp_path):
    execute(run, engines, output(run, tmp_path / "a"), batch=1)
    execute(run, engines, output(run, tmp_path / "b"), batch=64)
    differences = [
        np.abs(a - b).max()
        for a, b in zip(*map(images, (tmp_path / "a", tmp_path / "b")), strict=True)
    ]
    assert len(differences) == 21 and max(differences) <= 2


def test_a_record_says_everything_needed_to_make_its_image_again(run, engines, tmp_path):
    execute(run, engines, output(run, tmp_path / "out"), batch=8)
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
        how = record["solver"], record["steps"], record["layout_strength"]
        again = Run(run.bundle, run.requests, 1, *how)
        (sample,) = Sampler(engines).sample([request], again.trajectory, 1)
        difference = np.asarray(Image.open(io.BytesIO(png)), np.int16) - sample.image
        assert np.abs(difference).max() <= 2
        assert record["bundle"] == run.bundle.bundle_hash


def test_labels_come_from_the_request_and_acceptance_from_the_classifier(run, engines, tmp_path):
    execute(run, engines, output(run, tmp_path / "out"), batch=8)
    for record, _ in read(tmp_path / "out"):
        assert record["label"] == record["requested_label"] == run.requests[record["index"]].label
        probabilities = record["probabilities"]
        assert list(probabilities) == list(run.bundle.classes)
        assert sum(probabilities.values()) == pytest.approx(1, abs=1e-4)
        best = max(probabilities, key=probabilities.__getitem__)
        assert record["accepted"] == (best == record["label"])


def test_the_summary_counts_what_the_records_say(run, engines, tmp_path):
    summary = execute(run, engines, output(run, tmp_path / "out"), batch=8)
    records = [record for record, _ in read(tmp_path / "out")]
    for label in run.requests.labels:
        mine = [record for record in records if record["label"] == label]
        assert summary.labelled[label] == len(mine)
        assert summary.accepted[label] == sum(record["accepted"] for record in mine)
    assert sum(summary.accepted.values()) > 0


def test_stage_times_add_up_to_the_run(run, engines, tmp_path):
    summary = execute(run, engines, output(run, tmp_path / "out"), batch=8)
    times = asdict(summary.times)
    assert sum(times.values()) == pytest.approx(summary.seconds)
    assert all(seconds > 0 for seconds in times.values())
    assert summary.images_per_second == pytest.approx(21 / summary.seconds)


@pytest.mark.parametrize("backend", ["onnxruntime-cpu", "openvino-cpu"])
def test_the_summary_counts_broken_samples_and_those_made_again(
    run, tiny_bundle, tmp_path, backend, monkeypatch
):
    if not status(backend).works:
        pytest.skip(status(backend).reason)
    engines = LoadedEngines(tiny_bundle, backend, threads=1)
    decoder = open_engine(tiny_bundle, "decoder", "onnxruntime-cpu", threads=1)
    decode = decoder.run

    def flat(inputs):
        images = decode(inputs)["images"]
        images[0] = 0.5  # of each piece, so few of the run's that it goes on
        return {"images": images}

    monkeypatch.setattr(decoder, "run", flat)
    engines._loaded["decoder"] = decoder
    summary = execute(run, engines, output(run, tmp_path / "out"), batch=8)
    made_again = backend == "openvino-cpu"
    assert (summary.retried, summary.broken) == ((3, 0) if made_again else (0, 3))


def test_progress_rises_to_the_count_by_steps(run, engines, tmp_path):
    told: list[float] = []
    execute(run, engines, output(run, tmp_path / "out"), 8, told.append)
    assert told == sorted(told) and told[-1] == 21
    assert len(told) == 3 * run.steps


def test_progress_counts_a_batch_that_is_sampled_in_pieces(run, tiny_bundle, tmp_path, monkeypatch):
    monkeypatch.setattr(loaded_engines, "_POSITIONS_PER_CALL", 4 * 64)  # 4 images at once
    engines = LoadedEngines(tiny_bundle, "onnxruntime-cpu", threads=1)
    told: list[float] = []
    execute(run, engines, output(run, tmp_path / "out"), 21, told.append)
    assert len(told) == 6 * run.steps
    assert told[: run.steps] == [1, 2, 3, 4]
    assert told == sorted(told) and told[-1] == 21


def test_parquet_has_every_column_of_the_record(run, engines, tmp_path):
    execute(run, engines, output(run, tmp_path / "out", format="parquet"), batch=8)
    (sample,) = Sampler(engines).sample(run.requests[1:2], run.trajectory, 1)
    record, _ = list(read(tmp_path / "out"))[1]
    assert set(record) == {"file_name", *run.record(sample)}
    units = run.bundle.au_names
    told, asked = (facs.au_vector(r["aus"], units) for r in (record, run.record(sample)))
    np.testing.assert_array_equal(told, asked)


def test_a_batch_below_one_is_refused(run, engines, tmp_path):
    with pytest.raises(UserError, match="`batch` must be at least 1"):
        execute(run, engines, output(run, tmp_path / "out"), batch=0)
