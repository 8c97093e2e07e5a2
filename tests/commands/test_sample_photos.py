"""`synfer-rt sample` from photos of faces."""

from __future__ import annotations

import json

import pytest
from PIL import Image

from synfer_rt.data.writers import read
from tests.commands.test_cli import refused


@pytest.fixture
def photos(tmp_path):
    (tmp_path / "photos").mkdir()
    for i in range(2):
        Image.radial_gradient("L").rotate(90 * i).save(tmp_path / f"photos/{i}.png")
    (tmp_path / "photos/notes.txt").write_text("no face")
    return tmp_path / "photos"


def test_one_photo_is_shown_with_every_label(sample, photos, tmp_path):
    result = sample("--count", "8", "--layout-from", str(photos / "1.png"))
    assert result.exit_code == 0, result.output
    assert "1 photos to start from" in result.output and " dB" in result.output
    records = [record for record, _ in read(tmp_path / "out")]
    assert len({record["label"] for record in records}) == 8
    assert {record["source"] for record in records} == {"1.png"}
    assert {record["layout_strength"] for record in records} == {0.7}
    assert records[1]["prompt"] == "a photo of a happy face"


@pytest.mark.parametrize(("through_the_vae", "warned"), [(21.4, True), (33.4, False)])
def test_photos_that_the_model_distorts_are_warned_of(
    sample, photos, monkeypatch, through_the_vae, warned
):
    monkeypatch.setattr(
        "synfer_rt.sampling.inversion.PhotoStarts.round_trip",
        lambda starts: (20.0, through_the_vae),
    )
    found = sample("--count", "1", "--layout-from", str(photos / "1.png"))
    assert found.stderr.count("gives such photos back distorted") == warned


def test_photos_that_cannot_be_read_are_reported(sample, photos, tmp_path):
    result = sample("--count", "4", "--layout-from", str(photos), "--prompt", "a man")
    assert "1 file skipped" in result.output and "notes.txt" in result.output
    (line,) = (tmp_path / "__out__/skipped.jsonl").read_text().splitlines()
    assert json.loads(line)["file_name"] == "notes.txt"
    assert {record["prompt"] for record, _ in read(tmp_path / "out")} == {"a man"}


def test_a_run_from_photos_resumes_with_the_same_photos(sample, photos, tmp_path):
    options = ("--count", "4", "--layout-from", str(photos))
    assert sample(*options).exit_code == 0
    assert "already holds all 4" in sample(*options, "--resume").output
    Image.new("RGB", (40, 40)).save(photos / "1.png")
    assert "another photo set" in refused(sample(*options, "--resume"))


def test_nothing_is_written_among_the_photos(sample, photos):
    before = sorted(photos.iterdir())
    refused(sample("--layout-from", str(photos), out=photos / "out"))
    assert sorted(photos.iterdir()) == before


def test_photos_and_a_layout_exclude_each_other(sample, photos, tmp_path):
    said = refused(sample("--layout-from", str(photos), "--layout", "bank"))
    assert "leave one out" in said and not (tmp_path / "out").exists()
