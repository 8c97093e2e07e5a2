"""The pipeline: whole runs of a tiny model."""

from __future__ import annotations

import io
import os
import shutil
from collections import Counter
from dataclasses import asdict, replace
from typing import Any

import numpy as np
import pytest
from PIL import Image

from synfer_rt.backends import loaded_engines, open_engine, status
from synfer_rt.backends.loaded_engines import LoadedEngines
from synfer_rt.bundle import open_bundle
from synfer_rt.data.writers import FORMATS, open_output, read
from synfer_rt.errors import UserError
from synfer_rt.jobs.sample import execute
from synfer_rt.jobs.sample_run import Run
from synfer_rt.jobs.sample_settings import make_run
from synfer_rt.jobs.verify import faults, settings_of
from synfer_rt.judging.acceptance import RunningQuantile
from synfer_rt.judging.voting import Verdict
from synfer_rt.sampling.guidance import SemanticGuidance
from synfer_rt.sampling.inversion import read_photos
from synfer_rt.sampling.requests import make_requests
from synfer_rt.sampling.sampler import Sampler
from synfer_rt.vocabulary import facs
from tests import tiny_bundle as tiny


@pytest.fixture(scope="module")
def engines(tiny_bundle):
    return LoadedEngines(tiny_bundle, "onnxruntime-cpu", threads=1)


@pytest.fixture
def run(tiny_bundle):
    return Run(tiny_bundle, make_requests(tiny_bundle, seed=5), 21, "dpmpp-2m", 4, 0.9)


def test_a_model_that_embeds_guidance_has_no_branches_for_an_interval(tiny_bundle):
    bundle = replace(tiny_bundle, manifest={**tiny_bundle.manifest, "guidance_embedding": True})
    make_run(bundle, count=1, guidance=3.0)
    with pytest.raises(UserError, match="no branches for a `guidance_interval`; leave it out"):
        make_run(bundle, count=1, guidance=3.0, guidance_interval=(0.3, 5.0))


def output(run, out, resume=False, format="imagefolder", **options):
    return open_output(out, run.settings(format), resume=resume, **options)


def images(out):
    return [np.asarray(Image.open(io.BytesIO(png)), np.int16) for _, png in read(out)]


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
    from synfer_rt.sampling.requests import Request

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


def test_an_interrupted_run_keeps_what_was_written_and_resumes(run, engines, tmp_path):
    def interrupt(images: float) -> None:
        if images > 16:
            raise KeyboardInterrupt

    writer = output(run, tmp_path / "out")
    with pytest.raises(KeyboardInterrupt):
        execute(run, engines, writer, 8, interrupt)
    assert writer.done == 16
    resumed = output(run, tmp_path / "out", resume=True)
    assert resumed.done == 16
    assert execute(run, engines, resumed, 8).images == 5
    execute(run, engines, output(run, tmp_path / "whole"), 8)
    together = zip(images(tmp_path / "out"), images(tmp_path / "whole"), strict=True)
    assert max(np.abs(a - b).max() for a, b in together) <= 2


@pytest.fixture
def in_pieces(tiny_bundle_path, tmp_path, monkeypatch):
    """Engines that take 4 images at once, of a bundle of its own."""
    monkeypatch.setattr(loaded_engines, "_POSITIONS_PER_CALL", 4 * 64)
    bundle = open_bundle(shutil.copytree(tiny_bundle_path, tmp_path / "bundle"))
    return LoadedEngines(bundle, "onnxruntime-cpu", threads=1)


def test_finished_pieces_of_a_batch_outlive_an_interruption(run, in_pieces, tmp_path):
    run = replace(run, bundle=in_pieces.bundle)
    writer = output(run, tmp_path / "out")
    with pytest.raises(KeyboardInterrupt):
        execute(run, in_pieces, writer, 21, stop_after(10))  # in the third piece
    assert writer.done == 8
    execute(run, in_pieces, output(run, tmp_path / "out", resume=True), 21)
    execute(run, in_pieces, output(run, tmp_path / "whole"), 21)
    cut, whole = (list(read(tmp_path / out)) for out in ("out", "whole"))
    assert cut == whole


def overwrite(file, data):
    """As a copy does that keeps size and times."""
    times = file.stat().st_atime_ns, file.stat().st_mtime_ns
    with file.open("r+b") as out:
        out.write(data)
    os.utime(file, ns=times)


def while_it_runs(act):
    """Progress that acts once, in the third piece of 4."""
    pending = [act]

    def progress(images):
        if images > 8 and pending:
            pending.pop()()

    return progress


def test_a_bundle_that_changes_ends_the_run_and_nothing_mixed_is_written(run, in_pieces, tmp_path):
    run = replace(run, bundle=in_pieces.bundle)
    file = run.bundle.path / "decoder.onnx"
    other = bytes(len(file.read_bytes()))
    writer = output(run, tmp_path / "out")
    with pytest.raises(UserError, match=r"decoder\.onnx was changed or removed"):
        execute(run, in_pieces, writer, 21, while_it_runs(lambda: overwrite(file, other)))
    assert writer.done == 8


def test_a_bundle_that_is_gone_ends_the_run(run, in_pieces, tmp_path):
    run = replace(run, bundle=in_pieces.bundle)
    with pytest.raises(UserError, match="was changed or removed"):
        gone = while_it_runs((run.bundle.path / "denoiser.onnx").unlink)
        execute(run, in_pieces, output(run, tmp_path / "out"), 21, gone)


def test_a_bundle_of_the_same_bytes_is_no_other(run, in_pieces, tmp_path):
    run = replace(run, bundle=in_pieces.bundle)
    file = run.bundle.path / "decoder.onnx"
    data = file.read_bytes()

    def replaced():
        file.unlink()
        file.write_bytes(data)
        (run.bundle.path / "README.md").write_text("another card")

    writer = output(run, tmp_path / "out")
    assert execute(run, in_pieces, writer, 21, while_it_runs(replaced)).images == 21


def test_a_disk_error_while_writing_ends_the_run(run, engines, tmp_path):
    writer = output(run, tmp_path / "out")
    (tmp_path / "out/happy").touch()
    with pytest.raises(UserError, match="Cannot write"):
        execute(run, engines, writer, batch=4)


def test_parquet_has_every_column_of_the_record(run, engines, tmp_path):
    execute(run, engines, output(run, tmp_path / "out", format="parquet"), batch=8)
    (sample,) = Sampler(engines).sample(run.requests[1:2], run.trajectory, 1)
    record, _ = list(read(tmp_path / "out"))[1]
    assert set(record) == {"file_name", *run.record(sample)}
    units = run.bundle.au_names
    told, asked = (facs.au_vector(r["aus"], units) for r in (record, run.record(sample)))
    np.testing.assert_array_equal(told, asked)


def records(out):
    return [record for record, _ in read(out)]


def stop_after(images):
    def interrupt(made):
        if made > images:
            raise KeyboardInterrupt

    return interrupt


@pytest.fixture(scope="module")
def voting(voting_bundle):
    return LoadedEngines(voting_bundle, "onnxruntime-cpu", threads=1)


def voting_run(bundle, count=40, **options):
    return Run(bundle, make_requests(bundle, seed=5), count, "dpmpp-2m", 2, 0.9, **options)


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize(
    "options", [{"accept_rate": 0.4}, {"quota": 2}, {"quota": 2, "threshold": 0.3}], ids=str
)
def test_what_is_accepted_and_asked_for_is_the_same_after_an_interruption(
    voting_bundle, voting, tmp_path, format, options
):
    run = voting_run(voting_bundle, **options)
    execute(run, voting, output(run, tmp_path / "whole", format=format), 64)
    writer = output(run, tmp_path / "cut", format=format)
    with pytest.raises(KeyboardInterrupt):
        execute(run, voting, writer, 5, stop_after(11))
    assert 0 < writer.done < 16
    execute(run, voting, output(run, tmp_path / "cut", resume=True, format=format), 7)
    keys = ("index", "requested_label", "label", "rectified", "accepted")
    whole, cut = ([[r[k] for k in keys] for r in records(tmp_path / x)] for x in ("whole", "cut"))
    assert whole == cut
    assert {accepted for *_, accepted in whole} == {True, False}


def test_an_accept_rate_takes_the_most_confident_share_of_each_label(
    voting_bundle, voting, tmp_path
):
    run = voting_run(voting_bundle, 60, accept_rate=0.5)
    summary = execute(run, voting, output(run, tmp_path / "out"), 64)
    accept = RunningQuantile(0.5)
    for record in records(tmp_path / "out"):
        verdict = Verdict(record["label"], record["probabilities"], record["rectified"])
        assert record["accepted"] == accept(verdict)
    assert 25 <= sum(summary.accepted.values()) <= 40


def accepted(made):
    return Counter(record["label"] for record in made if record["accepted"])


def test_a_run_with_a_quota_ends_when_each_class_has_it(run, engines, tmp_path):
    run = replace(run, count=400, quota=2, accept_rate=0.5)
    summary = execute(run, engines, output(run, tmp_path / "out"), 64)
    made = records(tmp_path / "out")
    assert accepted(made) == dict.fromkeys(run.requests.labels, 2) and summary.missing == {}
    assert made[-1]["accepted"] and 16 < len(made) < 400


def test_a_run_with_a_quota_uses_up_its_budget_for_what_is_missing(voting_bundle, voting, tmp_path):
    run = voting_run(voting_bundle, 400, quota=2, accept_rate=1.0)
    writer = output(run, tmp_path / "out")
    summary = execute(run, voting, writer, 64)
    made = records(tmp_path / "out")
    counts = accepted(made)
    missing = {label: 2 - counts[label] for label in run.requests.labels if counts[label] < 2}
    assert missing and summary.missing == missing
    assert len(made) == writer.count == 400


@pytest.mark.parametrize("format", FORMATS)
def test_a_run_that_ended_early_is_whole(run, engines, tmp_path, format):
    small = replace(run, requests=make_requests(run.bundle, labels=["happy"]), count=200, quota=1)
    small = replace(small, threshold=0.0)
    summary = execute(small, engines, output(small, tmp_path / "out", format=format), 8)
    assert (summary.images, summary.missing) == (1, {})
    again = output(small, tmp_path / "out", resume=True, format=format)
    assert again.done == again.count == 1
    assert [r["index"] for r in records(tmp_path / "out")] == [0]


def test_nobody_can_accept_in_a_bundle_without_annotators(tmp_path):
    bundle = tiny.build(tmp_path / "bare", with_classifier=False)
    selections: list[dict[str, Any]] = [{"accept_rate": 0.5}, {"threshold": 0.5}, {"quota": 3}]
    for selection in selections:
        with pytest.raises(UserError, match="nothing can be accepted"):
            voting_run(bundle, **selection).check()


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


def test_a_batch_below_one_is_refused(run, engines, tmp_path):
    with pytest.raises(UserError, match="`batch` must be at least 1"):
        execute(run, engines, output(run, tmp_path / "out"), batch=0)


@pytest.mark.parametrize("options", [{}, {"accept_rate": 0.5}, {"quota": 1}])
@pytest.mark.parametrize("format", FORMATS)
def test_what_a_finished_run_lost_is_made_again(run, engines, tmp_path, format, options):
    run, out = replace(run, **options), tmp_path / "out"
    execute(run, engines, output(run, out, format=format, shard_size=6), batch=4)
    before, pictures = records(out), images(out)
    files = sorted(file for file in out.rglob("*.*") if file.suffix != ".jsonl")
    files[1].unlink()
    writer = output(run, out, True, format, shard_size=6)
    lost = [i for i in writer.lacking if i < len(before)]
    assert len(lost) == (1 if format == "imagefolder" else 6)
    told: list[float] = []
    execute(run, engines, writer, 4, told.append)
    assert records(out) == before and told[-1] <= run.count
    assert max(np.abs(a - b).max() for a, b in zip(pictures, images(out), strict=True)) <= 2
    assert not output(run, out, True, format, shard_size=6).lacking
    assert not list(faults(out, settings_of(out)))
