"""Runs from photos, and how samples are steered."""

from __future__ import annotations

from dataclasses import asdict, replace

import numpy as np
import pytest
from PIL import Image

from synfer_rt.backends.loaded_engines import LoadedEngines
from synfer_rt.errors import UserError
from synfer_rt.jobs.sample import execute
from synfer_rt.jobs.sample_run import Run
from synfer_rt.jobs.sample_settings import make_run
from synfer_rt.sampling.guidance import SemanticGuidance
from synfer_rt.sampling.inversion import read_photos
from synfer_rt.sampling.requests import make_requests
from tests.jobs.runs import images, output, records


@pytest.fixture
def photos(tmp_path):
    draws = np.random.default_rng(8)
    (tmp_path / "photos").mkdir()
    for i in range(2):
        pixels = draws.integers(0, 256, (32, 32, 3), np.uint8)
        Image.fromarray(pixels).save(tmp_path / f"photos/{i}.png")
    return read_photos(tmp_path / "photos", (32, 32))


def photo_run(bundle, photos, **options):
    requests = make_requests(bundle, photos=len(photos), seed=5)
    return Run(bundle, requests, 18, "dpmpp-2m", 3, 0.7, photos=photos, **options)


def test_every_photo_is_to_show_every_label(tiny_bundle, engines, photos, tmp_path):
    run = photo_run(tiny_bundle, photos)
    told: list[float] = []
    execute(run, engines, output(run, tmp_path / "out"), 18, told.append)
    made = records(tmp_path / "out")
    assert [record["source"] for record in made] == ["0.png"] * 8 + ["1.png"] * 8 + ["0.png"] * 2
    assert made[8]["source_sha256"] == photos.sha256[1] and made[8]["layout"] == 1
    assert [record["label"] for record in made[8:16]] == list(tiny_bundle.classes)
    assert len({record["prompt"] for record in made}) == 8
    assert told == [6, 12, 18]


def test_a_sample_of_a_photo_does_not_depend_on_its_batch(tiny_bundle, engines, photos, tmp_path):
    run = photo_run(tiny_bundle, photos)
    execute(run, engines, output(run, tmp_path / "a"), 18)
    execute(run, engines, output(run, tmp_path / "b"), 5)
    together = list(zip(images(tmp_path / "a"), images(tmp_path / "b"), strict=True))
    assert max(np.abs(a - b).max() for a, b in together) <= 2
    assert np.abs(together[0][0] - together[8][0]).max() > 5  # another photo


def test_records_say_how_a_sample_was_steered_and_what_from(guided_bundle, photos, tmp_path):
    engines = LoadedEngines(guided_bundle, "onnxruntime-cpu", threads=1)
    semantic = SemanticGuidance("text-latent", 0.5)
    run = photo_run(guided_bundle, photos, semantic=semantic)
    execute(run, engines, output(run, tmp_path / "out", format="parquet"), 18)
    for record in records(tmp_path / "out"):
        assert record["semantic_guidance"] == asdict(semantic)
        assert record["source_sha256"] in photos.sha256


def test_a_run_loads_the_denoisers_that_it_uses(branched_bundle, photos):
    """Photos are inverted without guidance."""

    def denoisers(run: Run) -> list[str]:
        assert {"conditioner", "decoder", *branched_bundle.annotators} <= set(run.engines)
        return [name for name in run.engines if name.startswith("denoiser")]

    alone = "denoiser.conditional"
    assert denoisers(make_run(branched_bundle, count=1)) == ["denoiser"]
    assert denoisers(make_run(branched_bundle, count=1, guidance=1)) == [alone]
    assert denoisers(photo_run(branched_bundle, photos)) == ["denoiser", alone]
    part = make_run(branched_bundle, count=1, guidance_interval=(0.0, 1.0))
    assert sorted(denoisers(part)) == ["denoiser", alone]
    whole = make_run(branched_bundle, count=1, guidance_interval=(0.0, 1e6))
    assert denoisers(whole) == ["denoiser"]


def test_an_open_interval_is_recorded_in_numbers(branched_bundle):
    run = make_run(branched_bundle, count=1, guidance_interval=(0.5, np.inf))
    assert run.settings("parquet")["guidance_interval"] == [0.5, None]
    assert "guidance_interval" not in make_run(branched_bundle, count=1).settings("parquet")


def test_a_model_that_embeds_guidance_has_no_branches_for_an_interval(tiny_bundle):
    bundle = replace(tiny_bundle, manifest={**tiny_bundle.manifest, "guidance_embedding": True})
    make_run(bundle, count=1, guidance=3.0)
    with pytest.raises(UserError, match="no branches for a `guidance_interval`; leave it out"):
        make_run(bundle, count=1, guidance=3.0, guidance_interval=(0.3, 5.0))
