"""Samples as a dataset of Ray Data, and what makes none."""

from __future__ import annotations

import numpy as np
import pytest

from synfer_rt.api import load
from synfer_rt.errors import UserError
from synfer_rt.jobs.sample_settings import make_run
from synfer_rt.ray import sample_dataset
from synfer_rt.ray.dataset import Sampling
from synfer_rt.ray.worker import ModelSpec

ray = pytest.importorskip("ray")
SETTINGS = {"labels": ["happy", "sad"], "seed": 11, "steps": 4}


def test_any_indices_give_the_samples_of_a_run(tiny_bundle, tiny_bundle_path):
    run = make_run(tiny_bundle, count=20, **SETTINGS)
    actor = Sampling(run, ModelSpec.of(tiny_bundle, "onnxruntime-cpu"), 1, 4)
    columns = actor({"index": np.array([17, 3, 4, 9, 12, 0])})
    assert columns["index"] == [0, 3, 4, 9, 12, 17]
    assert columns["image"].shape == (6, 32, 32, 3) and columns["image"].dtype == np.uint8
    model = load(tiny_bundle_path, backend="onnxruntime-cpu", threads=1)
    samples = model.sample(count=20, batch=8, **SETTINGS)
    for row, index in enumerate(columns["index"]):
        record = run.record(samples[index])
        assert np.array_equal(columns["image"][row], samples[index].image)
        assert {name: values[row] for name, values in columns.items() if name != "image"} == record


@pytest.mark.parametrize("settings", [{"accept_rate": 0.5}, {"count_accepted": True}])
def test_what_depends_on_samples_before_is_refused(tiny_bundle_path, settings):
    with pytest.raises(UserError, match="made in any order"):
        sample_dataset(tiny_bundle_path, count=4, **settings)


@pytest.mark.slow
def test_a_dataset_streams_from_actors(tiny_bundle_path, monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))  # where Ray leaves a token
    ray.init(num_cpus=2, object_store_memory=80 * 1024 * 1024, include_dashboard=False)
    try:
        faces = sample_dataset(
            tiny_bundle_path,
            count=20,
            batch=4,
            backend="onnxruntime-cpu",
            threads=1,
            **SETTINGS,
        )  # actors may take all cores, and nothing else needs one
        rows = sorted(faces.iter_rows(), key=lambda row: row["index"])
    finally:
        ray.shutdown()
    samples = load(tiny_bundle_path, backend="onnxruntime-cpu", threads=1).sample(
        count=20, **SETTINGS
    )
    assert [row["index"] for row in rows] == list(range(20))
    for row, sample in zip(rows, samples, strict=True):
        assert np.array_equal(row["image"], sample.image) and row["image"].dtype == np.uint8
        assert row["label"] == sample.label and row["accepted"] == sample.accepted
        assert row["aus"]["AU12"] == pytest.approx(sample.request.aus.get("AU12", 0.0), abs=1e-4)
