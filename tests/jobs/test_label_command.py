"""The command `label`: its table, and where that may lie."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from synfer_rt.data.datasets import read_dataset
from synfer_rt.data.writers.atomic import partial
from synfer_rt.errors import UserError
from tests.jobs.label_tables import labelled, lines


def test_labels_a_folder_into_a_directory(tiny_bundle_path: Path, folder: Path, tmp_path: Path):
    found = labelled(tiny_bundle_path, folder, "--out", tmp_path / "out")
    assert found.exit_code == 0
    assert "11 images labelled" in found.output and "2 files skipped" in found.output
    assert "happy/05b.jpg" in found.output
    assert len(lines(tmp_path / "out" / "labels.jsonl")) == 13
    again = labelled(tiny_bundle_path, folder, "--out", tmp_path / "out", "--resume")
    assert "already complete" in again.output
    with pytest.raises(UserError, match="another threshold"):
        options = ("--out", tmp_path / "out", "--resume", "--threshold", 0.9)
        labelled(tiny_bundle_path, folder, *options)


@pytest.mark.parametrize("suffix", [".jsonl", ".csv"])
def test_labels_what_has_no_name_in_utf8(
    tiny_bundle_path: Path, folder: Path, tmp_path: Path, suffix: str
):
    (tmp_path / "data").mkdir()
    shutil.copy(folder / "sad" / "00.png", tmp_path / "data" / os.fsdecode(b"caf\xe9.png"))
    (tmp_path / "data" / os.fsdecode(b"\xe9.txt")).write_text("not an image")
    out = (tmp_path / "labels").with_suffix(suffix)
    found = labelled(tiny_bundle_path, tmp_path / "data", "--out", out)
    assert found.exit_code == 0 and "1 images labelled" in found.output
    assert out.read_text().count("udce9") == 2


@pytest.mark.parametrize("out", ["loop", "loop/t.csv", "a" * 300])
def test_an_output_that_cannot_be_looked_at_is_refused(
    tiny_bundle_path: Path, folder: Path, tmp_path: Path, out: str
):
    (tmp_path / "loop").symlink_to("loop")
    with pytest.raises(UserError, match="cannot be accessed"):
        labelled(tiny_bundle_path, folder, "--out", tmp_path / out)


def test_resumes_with_no_other_files(tiny_bundle_path: Path, folder: Path, tmp_path: Path):
    image, out = tmp_path / "a.png", tmp_path / "t.jsonl"
    for number in (0, 2):
        shutil.copy(folder / "sad" / f"{number:02d}.png", image)
        if not number:
            labelled(tiny_bundle_path, image, "--out", out)
    with pytest.raises(UserError, match=r"another dataset \(.*sizes or modification times"):
        labelled(tiny_bundle_path, image, "--out", out, "--resume")


def test_labels_single_images(tiny_bundle_path: Path, folder: Path, tmp_path: Path):
    names = [folder / "sad" / "00.png", folder / "happy" / "01.png"]
    found = labelled(tiny_bundle_path, *names, "--out", tmp_path / "t.csv")
    assert found.exit_code == 0 and "2 images labelled, 0 rectified" in found.output


def test_an_image_that_is_listed_twice_has_one_line(
    tiny_bundle_path: Path, folder: Path, tmp_path: Path
):
    (tmp_path / "data").mkdir()
    shutil.copy(folder / "sad" / "00.png", tmp_path / "data" / "x.png")
    (tmp_path / "data" / "a.csv").write_text("file,label\nx.png,sad\nx.png,fear\n")
    found = labelled(tiny_bundle_path, tmp_path / "data", "--out", tmp_path / "t.jsonl")
    assert "a.csv: x.png: it says fear, but an earlier row says sad" in found.output
    names = [line["file_name"] for line in lines(tmp_path / "t.jsonl")]
    assert names == ["x.png", "a.csv: x.png"]


def test_resumes_beside_the_table_that_it_reads(
    tiny_bundle_path: Path, folder: Path, tmp_path: Path
):
    shutil.copytree(folder, tmp_path / "data")
    listing, out = tmp_path / "data" / "list.csv", tmp_path / "data" / "labels.jsonl"
    listing.write_text("file,label\nsad/00.png,sad\nhappy/01.png,happy\n")
    partial(out).touch()  # killed at once
    found = labelled(tiny_bundle_path, listing, "--out", out, "--resume")
    assert found.exit_code == 0 and len(lines(out)) == 2


@pytest.mark.parametrize("suffix", [".jsonl", ".csv"])
def test_the_table_is_a_dataset_where_it_lies(
    tiny_bundle_path: Path, folder: Path, tmp_path: Path, suffix: str
):
    for name in ("photos", "others"):  # of the same names
        for part in ("a", "b"):
            (tmp_path / name / part).mkdir(parents=True)
            shutil.copy(folder / "sad" / "00.png", tmp_path / name / part / "0.png")
    out = tmp_path / f"labels{suffix}"
    labelled(tiny_bundle_path, tmp_path / "photos", "--out", out)
    dataset = read_dataset(out)
    assert [item.name for item in dataset.items] == ["photos/a/0.png", "photos/b/0.png"]
    assert all(item.label for item in dataset.items) and not dataset.skipped


def test_a_table_that_lies_elsewhere_says_where_it_must_lie(
    tiny_bundle_path: Path, folder: Path, tmp_path: Path
):
    (tmp_path / "tables").mkdir()
    shutil.copytree(folder / "sad", tmp_path / "photos")
    out = tmp_path / "tables" / "labels.csv"
    labelled(tiny_bundle_path, tmp_path / "photos", "--out", out)
    with pytest.raises(UserError, match=rf"images in {tmp_path}/photos; move it beside that"):
        read_dataset(out)
    out.rename(tmp_path / "labels.csv")
    assert {i.name for i in read_dataset(tmp_path / "labels.csv").items} >= {"photos/00.png"}


def test_never_writes_into_the_input(tiny_bundle_path: Path, folder: Path):
    before = sorted(folder.rglob("*"))
    with pytest.raises(UserError, match="inside the input"):
        labelled(tiny_bundle_path, folder, "--out", folder / "labels.jsonl")
    assert sorted(folder.rglob("*")) == before
