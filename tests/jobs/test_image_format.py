"""JPEG and WebP images of runs: the same samples, the same labels, in other files."""

from __future__ import annotations

import io
import json
import logging
from pathlib import Path

import numpy as np
import pytest
import yaml
from datasets import Image as ImageFeature
from datasets import load_dataset
from PIL import Image, features

from synfer_rt.api import Model
from synfer_rt.api.outputs import verify
from synfer_rt.bundle import Bundle
from synfer_rt.data.image_format import of_settings
from synfer_rt.data.writers import FORMATS, read, run_file
from synfer_rt.errors import UserError

COUNT = 6
ENCODERS = {
    "jpeg": f"Pillow {Image.__version__}, libjpeg-turbo {features.version('libjpeg_turbo')}",
    "webp": f"Pillow {Image.__version__}, libwebp {features.version('webp')}",
}


@pytest.fixture(scope="module")
def model(voting_bundle: Bundle) -> Model:
    return Model(voting_bundle, "onnxruntime-cpu", 1)


@pytest.fixture(scope="module")
def runs(model: Model, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run as PNG, and in each format one as JPEG or WebP."""
    root = tmp_path_factory.mktemp("runs")
    model.write(root / "png", count=COUNT, steps=2)
    for format, images in zip(FORMATS, ("jpeg", "webp", "jpeg"), strict=True):
        model.write(root / format, count=COUNT, steps=2, format=format, image_format=images)
    return root


def settings(out: Path) -> dict:
    return json.loads(run_file.path(out).read_text())


def compressed(png: bytes, out: Path) -> bytes:
    """The file that a run makes of the pixels that a PNG file has."""
    with Image.open(io.BytesIO(png)) as image:
        return of_settings(settings(out)).encode([np.asarray(image)])[0]


def test_the_settings_of_png_runs_do_not_speak_of_images(runs):
    assert not [name for name in settings(runs / "png") if name.startswith("image_")]


@pytest.mark.parametrize("format", FORMATS)
def test_the_samples_and_their_labels_are_those_of_the_png_run(runs, format):
    lossless, lossy = list(read(runs / "png")), list(read(runs / format))
    for (record, png), (other, image) in zip(lossless, lossy, strict=True):
        assert image == compressed(png, runs / format)
        del record["file_name"], other["file_name"]
        assert record == other  # the probabilities are those before compression


@pytest.mark.parametrize("format", FORMATS)
def test_run_json_has_format_quality_and_encoder(runs, format):
    found = settings(runs / format)
    assert found["image_quality"] == 95
    assert found["image_encoder"] == ENCODERS[found["image_format"]]
    assert not verify(runs / format).faults


@pytest.mark.parametrize("format", FORMATS)
def test_the_card_says_how_images_were_compressed_and_loads_them(runs, tmp_path, format):
    faces = load_dataset(str(runs / format), split="train", cache_dir=str(tmp_path))
    column = "webp" if format == "webdataset" else "image"
    assert len(faces) == COUNT and isinstance(faces.features[column], ImageFeature)
    with Image.open(io.BytesIO(next(iter(read(runs / format)))[1])) as image:
        np.testing.assert_array_equal(np.asarray(faces[0][column]), np.asarray(image))
    beside = runs / (format if format != "parquet" else "__parquet__")
    card = (beside / "README.md").read_text()
    images = settings(runs / format)["image_format"]
    assert f"- image files: `{images}` in quality 95; the probabilities of a record are" in card
    assert f"--image-format {images} --image-quality 95" in card
    head = yaml.safe_load(card.split("---\n")[1])
    kinds = {".jsonl", ".jpg", ".webp", ".tar", ".parquet"}
    files = [file for file in (runs / format).rglob("*") if file.suffix in kinds]
    assert head["dataset_info"]["dataset_size"] == sum(file.stat().st_size for file in files)


def test_a_run_goes_on_with_another_release_of_the_encoder_and_says_so(
    model: Model, runs: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    out = tmp_path / "out"

    def stop(progress):
        if progress.done >= 4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        model.write(out, count=COUNT, steps=2, image_format="jpeg", batch=2, on_progress=stop)
    path = run_file.path(out)
    begun = json.loads(path.read_text())
    path.write_text(json.dumps(begun | {"image_encoder": "Pillow 1.0, libjpeg-turbo 0.1"}))
    with caplog.at_level(logging.WARNING):
        again = model.write(out, count=COUNT, steps=2, image_format="jpeg", resume=True)
    assert again.count == COUNT
    assert (
        f"was begun with Pillow 1.0, libjpeg-turbo 0.1, here is {ENCODERS['jpeg']}" in caplog.text
    )
    assert [x for _, x in read(out)] == [x for _, x in read(runs / "imagefolder")]
    caplog.clear()
    with caplog.at_level(logging.WARNING):  # nothing is left to encode
        model.write(out, count=COUNT, steps=2, image_format="jpeg", resume=True)
    assert "was begun with" not in caplog.text


def test_a_run_json_makes_the_same_files_again(model: Model, runs: Path, tmp_path: Path):
    (written,) = model.write_plan(run_file.path(runs / "webdataset"), tmp_path / "out")
    assert written.count == COUNT
    shard = "000000.tar"
    assert (tmp_path / "out" / shard).read_bytes() == (runs / "webdataset" / shard).read_bytes()


def test_a_plan_names_the_images_format(model: Model, tmp_path: Path):
    plan = {"count": 2, "steps": 1, "image_format": "webp", "image_quality": 60}
    model.write_plan(plan, tmp_path / "out")
    assert settings(tmp_path / "out")["image_quality"] == 60
    assert len(list((tmp_path / "out").rglob("*.webp"))) == 2
    measured = model.preview(plan, batch=2).measured
    assert measured is not None and measured.bytes_per_image > 0


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"image_format": "jpg"}, "'image_format' must be one of png, jpeg, webp, got 'jpg'"),
        ({"image_format": ["png"]}, "'image_format' must be one of"),
        ({"image_quality": 90}, "'image_quality' is of jpeg and webp"),
        ({"image_format": "webp", "image_quality": 0}, "'image_quality' must be from 1 to 100"),
    ],
)
def test_a_plan_with_another_format_is_refused(model: Model, given, said):
    with pytest.raises(UserError, match=said):
        model.preview({"count": 2, **given}, measure=False)


def test_augment_compresses_originals_and_additions(model: Model, runs: Path, tmp_path: Path):
    out = tmp_path / "out"
    model.augment(runs / "png", out, balance=2, attempts=1, repair_steps=0, image_format="webp")
    originals = [x for record, x in read(out) if record["origin"] == "original"]
    assert len(originals) == COUNT and settings(out)["image_format"] == "webp"
    assert {file.suffix for file in out.rglob("0*")} == {".webp"}
    sources = {record["source"]: x for record, x in read(out) if record["origin"] == "original"}
    for name, image in sources.items():
        assert image == compressed((runs / "png" / name).read_bytes(), out)
    assert not verify(out).faults
