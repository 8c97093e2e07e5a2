"""Runs at the qualities "best" and "fast": which engine makes the images, and what is written."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from synfer_rt.api import Model
from synfer_rt.bundle import Bundle
from synfer_rt.data.datasets import Dataset
from synfer_rt.data.writers import read, run_file
from synfer_rt.errors import UserError
from synfer_rt.jobs.sample_run import Run
from synfer_rt.jobs.sample_settings import make_run
from synfer_rt.sampling.requests import make_requests
from synfer_rt.sampling.sampler import Sampler
from tests.jobs.long_tail import job, written

CPU = "onnxruntime-cpu"


@pytest.fixture(scope="module")
def model(student_bundle: Bundle) -> Model:
    return Model(student_bundle, CPU, 1)


@pytest.fixture(scope="module")
def photo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("photos") / "face.png"
    Image.fromarray(np.full((32, 32, 3), 90, np.uint8)).save(path)
    return path


def run_of(bundle: Bundle, **settings: Any) -> Run:
    return make_run(bundle, count=2, **settings)


def test_by_default_the_student_makes_the_images(student_bundle: Bundle) -> None:
    run = run_of(student_bundle)
    assert (run.quality, run.remark) == ("fast", None)
    assert (run.solver, run.steps, run.requests.guidance) == ("ddim", 2, 3.0)
    assert run.trajectory.denoiser == "denoiser.distilled"
    assert "denoiser.distilled" in run.engines and "denoiser" not in run.engines


def test_best_has_the_models_own_defaults(student_bundle: Bundle, tiny_bundle: Bundle) -> None:
    run, plain = run_of(student_bundle, quality="best"), run_of(tiny_bundle)
    assert (run.quality, run.remark) == ("best", None)
    for name in ("solver", "steps", "layout_strength"):
        assert getattr(run, name) == getattr(plain, name) == getattr(plain.bundle.defaults, name)
    assert run.requests.guidance == plain.requests.guidance == 2.0
    assert run.trajectory.denoiser == "denoiser"
    assert "denoiser.distilled" not in run.engines


SETTINGS: dict[str, dict[str, Any]] = {
    "guidance": {"guidance": 5},
    "no guidance": {"guidance": 0},
    "negative_prompt": {"negative_prompt": "beard"},
    "semantic_guidance": {"semantic_guidance": 0.1},
    "solver": {"solver": "unipc"},
    "steps": {"steps": 8},
    "layout_strength": {"layout_strength": 0.5},
}


@pytest.mark.parametrize("setting", SETTINGS)
def test_each_setting_of_a_run_that_fast_cannot_follow_takes_best(
    student_bundle: Bundle, setting: str
) -> None:
    given = SETTINGS[setting]
    run = run_of(student_bundle, **given)
    assert run.quality == "best" and run.trajectory.denoiser == "denoiser"
    said = "strength 0.5" if setting == "layout_strength" else f"`{setting.split()[-1]}`"
    assert said in (run.remark or "")
    defaults = student_bundle.defaults
    assert run.steps == given.get("steps", defaults.steps)
    assert run.requests.guidance == max(1, given.get("guidance", defaults.guidance))
    with pytest.raises(UserError, match=said):
        run_of(student_bundle, quality="fast", **given)


def test_photos_take_best(student_bundle: Bundle, photo: Path) -> None:
    run = run_of(student_bundle, layout_from=photo)
    assert run.quality == "best" and "`layout_from`" in (run.remark or "")
    with pytest.raises(UserError, match="`layout_from`"):
        run_of(student_bundle, layout_from=photo, layout_strength=0.9, quality="fast")


def test_noise_alone_is_a_strength_of_1(student_bundle: Bundle) -> None:
    assert run_of(student_bundle, layout="none").quality == "fast"


def test_values_are_checked_whatever_the_quality(student_bundle: Bundle) -> None:
    for settings, said in (
        ({"guidance": -1}, "`guidance` must be"),
        ({"steps": 0}, "`steps` must be a whole number"),
        ({"solver": "unipcc"}, "the nearest is unipc"),
        ({"quality": 3}, "Unknown `quality` 3"),
    ):
        with pytest.raises(UserError, match=said):
            run_of(student_bundle, **settings)


@pytest.mark.parametrize("quality", ["fast", "best"])
def test_records_and_run_json_say_which_was_used(
    model: Model, tmp_path: Path, quality: str
) -> None:
    bundle = model.bundle
    written = model.write(tmp_path / "out", count=3, seed=4, quality=quality)
    assert written.summary.quality == quality
    settings = run_file.load(tmp_path / "out")
    records = [record for record, _ in read(tmp_path / "out")]
    defaults = bundle.defaults_of(quality)
    name = bundle.trajectory(quality=quality).denoiser
    for said in (settings, *records):
        assert said["quality"] == quality and said["bundle"] == bundle.hash_with(name)
        assert (said["solver"], said["steps"]) == (defaults.solver, defaults.steps)
        assert said["guidance"] == defaults.guidance
    assert (bundle.hash_with(name) == bundle.bundle_hash) == (quality == "best")


def test_a_record_of_fast_says_everything_needed_to_make_its_image_again(model: Model) -> None:
    bundle = model.bundle
    samples = model.sample(count=3, seed=4)
    way = bundle.trajectory("ddim", 2, 0.9, quality="fast")
    requests = make_requests(bundle, guidance=3.0, seed=4)[:3]
    again = Sampler.of(bundle, CPU, threads=1).sample(requests, way, 3)
    assert [sample.request for sample in samples] == requests
    for one, other in zip(samples, again, strict=True):
        np.testing.assert_array_equal(one.image, other.image)


def test_best_makes_the_images_of_the_bundle_without_a_student(
    model: Model, guided_bundle: Bundle
) -> None:
    before = Model(guided_bundle, CPU, 1).sample(count=3, seed=4)
    best, fast = (model.sample(count=3, seed=4, quality=q) for q in ("best", "fast"))
    for old, one, other in zip(before, best, fast, strict=True):
        np.testing.assert_array_equal(old.image, one.image)
        assert not np.array_equal(one.image, other.image)


def test_what_is_taken_instead_is_logged_once(
    model: Model, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, "synfer_rt.jobs"):
        model.sample(count=1, steps=3)
    said = [r for r in caplog.records if "quality best" in r.getMessage()]
    assert len(said) == 1 and said[0].levelno == logging.INFO
    caplog.clear()
    with caplog.at_level(logging.INFO, "synfer_rt.jobs"):
        model.sample(count=1)
        model.sample(count=1, quality="best", steps=3)
    assert not caplog.records


def begin(model: Model, out: Path, **settings: Any) -> None:
    """A run of 40 images that is stopped before its end."""

    def stop(progress: Any) -> None:
        if progress.done > 20:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        model.write(out, count=40, batch=8, on_progress=stop, **settings)


def test_a_run_goes_on_at_its_own_quality(model: Model, tmp_path: Path) -> None:
    begin(model, tmp_path / "out", quality="best")
    model.write(tmp_path / "out", count=40, batch=8, resume=True)
    assert {record["quality"] for record, _ in read(tmp_path / "out")} == {"best"}


def test_a_run_of_an_older_release_goes_on_at_best(model: Model, tmp_path: Path) -> None:
    begin(model, tmp_path / "out", quality="best")
    path = run_file.path(tmp_path / "out")
    settings = json.loads(path.read_text())
    del settings["quality"]
    path.write_text(json.dumps(settings))
    model.write(tmp_path / "out", count=40, batch=8, resume=True)
    assert sum(1 for _ in read(tmp_path / "out")) == 40


@pytest.mark.parametrize("begun", ["best", "fast"])
def test_another_quality_is_refused(model: Model, tmp_path: Path, begun: str) -> None:
    other = {"best": "fast", "fast": "best"}[begun]
    begin(model, tmp_path / "out", quality=begun)
    with pytest.raises(UserError, match=f'another quality: "{begun}", now "{other}"'):
        model.write(tmp_path / "out", count=40, resume=True, quality=other)


def test_a_run_at_fast_does_not_go_on_with_what_needs_best(model: Model, tmp_path: Path) -> None:
    begin(model, tmp_path / "out")
    with pytest.raises(UserError, match='another quality: "fast", now "best"'):
        model.write(tmp_path / "out", count=40, resume=True, steps=8)
    model.write(tmp_path / "out", count=40, resume=True)
    assert {record["quality"] for record, _ in read(tmp_path / "out")} == {"fast"}


def test_additions_are_repaired_at_best(
    student_bundle: Bundle, dataset: Dataset, tmp_path: Path
) -> None:
    """The student is distilled for neither their steps nor their strength."""
    sampler = Sampler.of(student_bundle, CPU, threads=1)
    how = job(dataset, repair_steps=2)
    records = [record for record, _ in written(how, sampler, tmp_path / "out")]
    added = [record for record in records if record["origin"] == "augmented"]
    assert {(r["quality"], r["solver"], r["guidance"]) for r in added} == {("best", "dpmpp-2m", 2)}
    assert {r["quality"] for r in records if r["origin"] == "original"} == {""}
    assert run_file.load(tmp_path / "out")["quality"] == "best"
    assert "denoiser.distilled" not in sampler.engines.placements()
