"""`synfer-rt sample` from a dataset of photos, with what their table or the AU reader says."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from synfer_rt.api import Model
from synfer_rt.bundle import Bundle
from synfer_rt.data.writers import read, run_file
from synfer_rt.jobs.verify import faults, settings_of
from synfer_rt.records import OF_PHOTOS
from tests.commands.test_cli import refused
from tests.commands.test_plan import files
from tests.small_datasets import put_text

ROWS = (
    "file_name,label,caption,AU6,AU12",
    "0.png,happy,a smiling man,0.5,0.75",
    "1.png,sad,a sad man,0,0.25",
    "2.png,,,0.1,0.1",
    "3.png,fear,,1,0",
    "4.png,happy,a happy woman,0.25,1",
)
KEPT = ("--steps", "2", "--count", "4", "--keep-label", "--aus-from")


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    root = tmp_path / "photos"
    root.mkdir()
    for i in range(5):
        Image.radial_gradient("L").rotate(30 * i).save(root / f"{i}.png")
    put_text(root / "labels.csv", "\n".join(ROWS))
    return root


@pytest.fixture
def from_photos(sample, voting_bundle: Bundle, photos: Path):
    def invoke(*options: str, **places: Any):
        where = ("--layout-from", str(photos))
        return sample(*where, *options, **{"engines": voting_bundle.path, **places})

    return invoke


def records(out: Path) -> list[dict[str, Any]]:
    return [record for record, _ in read(out)]


def test_what_is_not_read_of_captions_is_said(from_photos, photos: Path, tmp_path: Path):
    """Captions come from the table and from a text file; the model reads 48 tokens of them."""
    (photos / "0.txt").write_text("a zorbling man " + "who is happy " * 40)
    result = from_photos(*KEPT, "prototype")
    assert result.exit_code == 0, result.output
    said = " ".join(result.stderr.split())
    assert "1 of 3 captions that were looked at are longer than the 48 tokens" in said
    assert re.search(r"the most frequent ones of 3 captions [^:]*: .*zorbling", said)
    assert any(
        record["prompt"].startswith("a zorbling man who") for record in records(tmp_path / "out")
    )
    assert (
        "captions"
        not in from_photos(*KEPT, "prototype", "--prompt", "a man", out=tmp_path / "b").stderr
    )


@pytest.mark.parametrize("format", ["imagefolder", "parquet"])
def test_records_say_what_came_from_where(from_photos, tmp_path: Path, format: str):
    result = from_photos(*KEPT, "photo", "--format", format)
    assert result.exit_code == 0, result.output
    assert "2.png: it has no label" in result.output
    found = {record["source"]: record for record in records(tmp_path / "out")}
    assert {name: record["requested_label"] for name, record in found.items()} == {
        "0.png": "happy", "1.png": "sad", "3.png": "fear", "4.png": "happy",
    }  # fmt: skip
    assert found["0.png"]["prompt"] == "a smiling man"
    assert found["3.png"]["prompt"].startswith("a photo of a")
    shown = {name: (r["aus"]["AU6"], r["aus"]["AU12"]) for name, r in found.items()}
    assert shown == {"0.png": (0.5, 0.75), "1.png": (0, 0.25), "3.png": (1, 0), "4.png": (0.25, 1)}
    sources = {(record["label_source"], record["aus_source"]) for record in found.values()}
    assert sources == {("photo", "photo")}
    settings = settings_of(tmp_path / "out")
    assert (settings["keep_label"], settings["aus_from"]) == (True, "photo")
    assert not list(faults(tmp_path / "out", settings))


def test_the_reader_says_of_photos_what_label_says(
    from_photos, voting_bundle: Bundle, photos: Path, tmp_path: Path
):
    result = from_photos(*KEPT, "reader")
    assert result.exit_code == 0, result.output
    lines = Model(voting_bundle, "onnxruntime-cpu", 1).label(photos)
    said = {line.file_name: line.aus for line in lines}
    for record in records(tmp_path / "out"):
        assert record["aus"] == pytest.approx(said[record["source"]], abs=1e-4)
        assert record["aus_source"] == "reader" and any(record["aus"].values())


def test_records_of_other_runs_have_no_sources(from_photos, tmp_path: Path):
    assert from_photos("--count", "2", "--steps", "2").exit_code == 0
    assert not {field.name for field in OF_PHOTOS} & records(tmp_path / "out")[0].keys()


@pytest.mark.parametrize("aus_from", ["photo", "reader"])
def test_parts_and_batches_make_the_same_files(from_photos, tmp_path: Path, aus_from: str):
    how = (*KEPT, aus_from, "--format", "parquet", "--shard-size", "2")
    assert from_photos(*how).exit_code == 0
    for part in ("1/2", "0/2"):
        made = from_photos(*how, "--batch", "3", "--part", part, out=tmp_path / "parts")
        assert made.exit_code == 0, made.output
    assert files(tmp_path / "parts") == files(tmp_path / "out")


def test_a_run_resumes_with_the_same_dataset(from_photos, photos: Path, tmp_path: Path):
    how = (*KEPT, "reader")
    assert from_photos(*how).exit_code == 0
    before = files(tmp_path / "out")
    next((tmp_path / "out").rglob("*.png")).unlink()
    assert from_photos(*how, "--resume").exit_code == 0
    assert files(tmp_path / "out") == before
    assert "another aus from" in refused(from_photos(*KEPT, "prototype", "--resume"))
    text = (photos / "labels.csv").read_text()
    put_text(photos / "labels.csv", text.replace("a smiling man", "a man"))
    assert "another photo set" in refused(from_photos(*how, "--resume"))


def test_a_plan_and_a_run_made_again(sample, from_photos, voting_bundle, photos, tmp_path: Path):
    assert from_photos(*KEPT, "photo").exit_code == 0
    plan = {"layout_from": "photos", "keep_label": True, "aus_from": "photo"}
    put_text(tmp_path / "plan.json", json.dumps({**plan, "count": 4, "steps": 2}))
    again = ("--plan", str(run_file.path(tmp_path / "out")), "--layout-from", str(photos))
    for name, words in (("plan", ("--plan", str(tmp_path / "plan.json"))), ("again", again)):
        made = sample(*words, engines=voting_bundle.path, out=tmp_path / name)
        assert made.exit_code == 0, made.output
        assert files(tmp_path / name) == files(tmp_path / "out")
    put_text(tmp_path / "plan.json", json.dumps({**plan, "labels": ["sad"]}))
    said = refused(sample("--plan", str(tmp_path / "plan.json"), engines=voting_bundle.path))
    assert "'labels' and 'keep_label' exclude each other" in said


def test_a_run_of_release_0_1_continues_as_it_was_begun(
    sample, from_photos, voting_bundle, photos, tmp_path: Path
):
    """Its run.json says nothing of the inversion, of which there was one."""
    how = ("--count", "3", "--steps", "2")
    assert from_photos(*how, "--inversion", "fixed-point").exit_code == 0
    out = tmp_path / "out"
    assert "inversion" not in settings_of(out)
    before = files(out)
    assert "--inversion fixed-point" in before["README.md"].decode()
    next(out.rglob("*.png")).unlink()
    assert from_photos(*how, "--resume").exit_code == 0
    assert files(out) == before
    again = ("--plan", str(run_file.path(out)), "--layout-from", str(photos))
    made = sample(*again, engines=voting_bundle.path, out=tmp_path / "again")
    assert made.exit_code == 0 and files(tmp_path / "again") == before
    newest = ("--inversion", "predictor-corrector")
    assert "another inversion" in refused(from_photos(*how, *newest, "--resume"))
    assert from_photos(*how, out=tmp_path / "new").exit_code == 0
    assert settings_of(tmp_path / "new")["inversion"] == "predictor-corrector"
    assert files(tmp_path / "new") != before
