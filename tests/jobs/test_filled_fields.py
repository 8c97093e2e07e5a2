"""Records fill in the fields that the table of fields names for their origin, and no others."""

from __future__ import annotations

from pathlib import Path

import pytest

from synfer_rt.backends.loaded_engines import LoadedEngines
from synfer_rt.data.datasets import Dataset
from synfer_rt.data.writers import open_output, read
from synfer_rt.jobs.sample import execute
from synfer_rt.jobs.sample_run import Run
from synfer_rt.records import AUGMENTED, ORIGINAL, RECORD, SAMPLED, Record, blank_record
from synfer_rt.sampling.requests import make_requests
from synfer_rt.sampling.sampler import Sampler
from tests.jobs.long_tail import job, written


def filled_in(records: list[Record], sampler: Sampler) -> set[str]:
    """The fields that hold another than their empty value in one of the records."""
    empty = blank_record(sampler.bundle.classes, sampler.bundle.au_names)
    return {name for record in records for name, value in empty.items() if record[name] != value}


def named(origin: str) -> set[str]:
    return {field.name for field in RECORD if origin in field.filled_for}


@pytest.mark.parametrize("origin", [ORIGINAL, AUGMENTED])
def test_records_of_augment(dataset: Dataset, sampler: Sampler, tmp_path: Path, origin: str):
    how = job(dataset, repair_steps=2, noise_scale=3.0, decode_originals=True)
    samples = written(how, sampler, tmp_path / "out")
    filled = filled_in([made for made, _ in samples if made["origin"] == origin], sampler)
    assert filled <= named(origin)
    # The bundle has no negative prompt, and the vote may see none of the classes.
    assert named(origin) - filled <= {"negative_prompt", "accepted"}


def test_records_of_sample(sampler: Sampler, tmp_path: Path):
    bundle = sampler.bundle
    requests = make_requests(bundle, negative_prompt="blurred", seed=5)
    run = Run(bundle, requests, 8, "dpmpp-2m", 2, 0.9)
    engines = LoadedEngines(bundle, "onnxruntime-cpu", threads=1)
    execute(run, engines, open_output(tmp_path, run.settings("parquet"), resume=False), 8)
    filled = filled_in([made for made, _ in read(tmp_path)], sampler)
    elsewhere = {"rectified", "semantic_guidance", "source", "source_sha256", "origin"}
    elsewhere |= {"guidance_interval", "timesteps", "eta"}
    assert filled == named(SAMPLED) - elsewhere  # one annotator, no guidance, no photos
