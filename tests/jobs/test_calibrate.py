"""`calibrate`, and the label sets that `label` and `sample` write by its file."""

from __future__ import annotations

import csv
import json
import logging
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

import synfer_rt
from synfer_rt import UserError
from synfer_rt.api import Model
from synfer_rt.bundle import Bundle
from synfer_rt.commands.cli import main
from synfer_rt.data.writers import FORMATS, read, run_file
from synfer_rt.judging.annotators import Annotators, Seen

CLASSES = ("happy", "sad", "fear")


@pytest.fixture(scope="module", autouse=True)
def few_images_fit_a_temperature() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("synfer_rt.judging.temperature.FEWEST", 2)
        yield


@pytest.fixture(scope="module")
def model(voting_bundle: Bundle) -> Model:
    return synfer_rt.load(voting_bundle.path, backend="onnxruntime-cpu", threads=1)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve images of each of three classes, one more without a class, and a torn one."""
    root, draw = tmp_path_factory.mktemp("data"), np.random.default_rng(0)
    for name in CLASSES:
        (root / name).mkdir()
        for i in range(12):
            pixels = draw.integers(0, 256, (8, 8, 3), np.uint8)
            Image.fromarray(pixels).resize((32, 32)).save(root / name / f"{i:02d}.png")
    (root / "a.png").write_bytes((root / "sad" / "00.png").read_bytes())
    (root / "sad" / "torn.png").write_bytes(b"torn")
    return root


@pytest.fixture(scope="module")
def file(model: Model, data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("made") / "calibration.json"
    made = model.calibrate(data, out, batch=5)
    assert {name for name, _ in made.skipped} == {"a.png", "sad/torn.png"}
    return out


def test_the_file_names_the_bundle_and_its_annotators(model: Model, file: Path) -> None:
    found = json.loads(file.read_text())
    bundle = model.bundle
    assert found["bundle"] == {"name": bundle.name, "hash": bundle.bundle_hash}
    files = bundle.manifest["files"]
    for name, entry in found["annotators"].items():
        assert entry["sha256"] == files[bundle.engines[name].file]["sha256"]
        assert 0.05 <= entry["temperature"] <= 20
    assert found["annotators"].keys() == {*bundle.annotators}
    assert found["vote"]["images"] == 9  # a quarter of each twelve
    counts = {name: len(scores) for name, scores in found["scores"].items()}
    assert counts == {name: 9 if name in CLASSES else 0 for name in bundle.classes}


def test_it_does_not_depend_on_the_batch(
    model: Model, data: Path, file: Path, tmp_path: Path
) -> None:
    model.calibrate(data, tmp_path / "again.json", batch=64)
    once, again = (json.loads(p.read_text()) for p in (file, tmp_path / "again.json"))
    for name in CLASSES:
        assert again["scores"][name] == pytest.approx(once["scores"][name], abs=1e-4)


def test_label_writes_sets_beside_labels(
    model: Model, data: Path, file: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    plain = list(model.label(data))
    with caplog.at_level(logging.WARNING, "synfer_rt.jobs"):
        found = list(model.label(data, calibration=file, coverage=0.8, out=tmp_path / "l.jsonl"))
    assert "these had fewer, and are in every set: neutral 0" in caplog.text
    assert all(not image.label_set and not image.coverage for image in plain)
    assert any(a.probabilities != b.probabilities for a, b in zip(plain, found, strict=True))
    sound = [image for image in found if not image.error]
    thresholds = run_settings(tmp_path / "l.jsonl")["calibration"]["thresholds"]
    for image in sound:
        assert image.coverage == 0.8
        held = {name: p >= thresholds[name] for name, p in image.probabilities.items()}
        assert image.label_set == held and image.label_set["neutral"]
    for name in CLASSES:  # the images that fitted: at least as many as conformal quantiles leave
        mine = [image.label_set[name] for image in sound if image.given_label == name]
        assert sum(mine) >= 9 * 0.8 - 1
    rows = list(model.label(data, calibration=file, coverage=0.8, out=tmp_path / "l.csv"))
    assert rows == found
    with (tmp_path / "l.csv").open(newline="") as opened:
        row = next(csv.DictReader(opened))
    assert row["set.neutral"] == "True" and row["coverage"] == "0.8"


def run_settings(table: Path) -> dict[str, Any]:
    return json.loads(table.with_name(f"{table.name}.run.json").read_text())


def test_a_table_resumes_with_its_calibration_alone(
    model: Model, data: Path, file: Path, tmp_path: Path
) -> None:
    table = tmp_path / "l.jsonl"
    model.label(data, calibration=file, out=table)
    again = model.label(data, calibration=file, coverage=0.9, out=table, resume=True)
    assert again.new == 0
    with pytest.raises(UserError, match="begun with another calibration"):
        model.label(data, calibration=file, coverage=0.8, out=table, resume=True)


@pytest.mark.parametrize("format", FORMATS)
def test_sample_writes_sets_in_every_format(
    model: Model, file: Path, tmp_path: Path, format: str
) -> None:
    settings: dict[str, Any] = {"steps": 1, "calibration": file, "coverage": 0.8}
    model.write(tmp_path / "out", count=8, format=format, **settings)
    samples = model.sample(count=8, **settings)
    records = [record for record, _ in read(tmp_path / "out")]
    for record, sample in zip(records, samples, strict=True):
        assert list(record)[-2:] == ["label_set", "coverage"]
        assert sample.label_set == tuple(n for n, held in record["label_set"].items() if held)
        assert record["coverage"] == 0.8 and record["probabilities"] == sample.probabilities
    if format == "imagefolder":
        made = run_file.folder(tmp_path / "out") / "run.json"
        model.write_plan(made, tmp_path / "again")  # the calibration's file is not needed
        assert [record for record, _ in read(tmp_path / "again")] == records
        assert "--calibration CALIBRATION --coverage 0.8" in card(tmp_path / "out")


def card(out: Path) -> str:
    return (out / "README.md").read_text()


def test_without_a_calibration_nothing_is_added(model: Model) -> None:
    (sample,) = model.sample(count=1, steps=1)
    assert sample.label_set is None


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"bundle": {"name": "other", "hash": "0" * 64}}, "is the calibration of other"),
        ({"annotators": {}}, "make one for this bundle"),
        ({"scores": {"happy": [0.5]}}, "make one for this bundle"),
        ({"scores": {"happy": [0.5, 0.4]}}, "no probabilities in rising order"),
        ({"vote": {"temperature": 0}}, "temperature 0 is not from"),
        ({"format": 2}, "its format is 2"),
    ],
)
def test_a_file_for_something_else_is_refused(
    model: Model, data: Path, file: Path, tmp_path: Path, change: dict[str, Any], said: str
) -> None:
    other = tmp_path / "other.json"
    other.write_text(json.dumps({**json.loads(file.read_text()), **change}))
    with pytest.raises(UserError, match=said):
        model.label(data, calibration=other)


def test_what_cannot_be_is_refused(model: Model, data: Path, file: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="`coverage` needs a `calibration`"):
        model.label(data, coverage=0.9)
    with pytest.raises(UserError, match="`coverage` must be"):
        model.sample(count=1, calibration=file, coverage=1.0)
    with pytest.raises(UserError, match="make one with `synfer-rt calibrate`"):
        model.sample(count=1, calibration=tmp_path / "none.json")
    (tmp_path / "bare").mkdir()
    (tmp_path / "bare" / "a.png").write_bytes((data / "a.png").read_bytes())
    with pytest.raises(UserError, match="`data` must name at least one"):
        model.calibrate([], tmp_path / "c.json")
    with pytest.raises(UserError, match="no image with a label that"):
        model.calibrate(tmp_path / "bare", tmp_path / "c.json")


def test_the_first_image_that_cannot_be_used_is_named(model: Model, tmp_path: Path) -> None:
    for label, name in (("happy", "a"), ("happy", "b"), ("sad", "c")):
        (tmp_path / "data" / label).mkdir(parents=True, exist_ok=True)
        (tmp_path / "data" / label / f"{name}.png").write_bytes(b"no image")
    with pytest.raises(UserError, match=r"can be used; the first, happy/a.png: .*unknown"):
        model.calibrate(tmp_path / "data", tmp_path / "c.json")


def test_the_command_says_what_it_found(voting_bundle: Bundle, data: Path, tmp_path: Path) -> None:
    options = ("--engines", str(voting_bundle.path), "--backend", "onnxruntime-cpu")
    out = str(tmp_path / "c.json")
    made = CliRunner().invoke(main, ["calibrate", *options, "--data", str(data), "--out", out])
    assert made.exit_code == 0, made.output
    assert "vote: temperature" in made.output and "happy: 9 images" in made.output
    assert "neutral: 0 images, no image" in made.output
    assert "need 9 images of a class" in made.output and "1: it is not in a class" in made.output


def test_a_copy_of_an_image_does_not_count(model: Model, data: Path, file: Path, tmp_path: Path):
    """The same images given twice say no more than once."""
    shutil.copytree(data, tmp_path / "again")
    (tmp_path / "again" / "sad" / "torn.png").unlink()
    made = model.calibrate([data, tmp_path / "again"], tmp_path / "c.json", batch=7)
    assert sum("copy of another image" in reason for _, reason in made.skipped) == 36
    once, twice = json.loads(file.read_text()), json.loads((tmp_path / "c.json").read_text())
    assert {name: len(scores) for name, scores in twice["scores"].items()} == {
        name: len(scores) for name, scores in once["scores"].items()
    }


def test_a_place_that_cannot_be_written_is_refused_before_the_work(
    model: Model, data: Path, tmp_path: Path
):
    (tmp_path / "file").touch()
    done: list[object] = []
    with pytest.raises(UserError, match=r"Cannot write .*c\.json \(.*choose another `out`"):
        model.calibrate(data, tmp_path / "file" / "c.json", on_progress=done.append)
    assert not done


def test_an_image_of_which_an_annotator_gives_no_number_fits_nothing(
    model: Model, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    see = Annotators.see

    def overflowing(self: Annotators, images: np.ndarray) -> Seen:
        seen = see(self, images)
        seen.opinions[0].probabilities[-1] = np.inf
        return seen

    monkeypatch.setattr(Annotators, "see", overflowing)
    made = model.calibrate(data, tmp_path / "c.json", batch=12)
    reasons = [reason for _, reason in made.skipped if "not finite" in reason]
    assert 1 <= len(reasons) <= 4 and "classifier.small" in reasons[0]
    assert sum(made.counts.values()) + made.fitted.fitted == 36 - len(reasons)
    monkeypatch.undo()
    model.label(data, calibration=tmp_path / "c.json")  # it can be read


def test_another_file_is_not_lost(model: Model, data: Path, file: Path, tmp_path: Path) -> None:
    other = tmp_path / "settings.json"
    for text in ('{"format": 1}', "index,label\n", ""):
        other.write_text(text)
        with pytest.raises(UserError, match="exists and is no calibration"):
            model.calibrate(data, other)
        assert other.read_text() == text
    other.write_text(file.read_text())
    model.calibrate(data, other)
