"""The command `synfer-rt augment`."""

from __future__ import annotations

import base64
import io
import json
import shutil
import tarfile
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from synfer_rt.commands.augment import augment
from synfer_rt.commands.notes import noting_logs
from synfer_rt.data.contact_sheet import contact_sheet
from synfer_rt.data.datasets import read_dataset
from synfer_rt.data.writers import read, run_file
from synfer_rt.data.writers.atomic import partial
from synfer_rt.errors import UserError
from tests.jobs.long_tail import decoded, write_long_tail
from tests.small_datasets import picture


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_long_tail(tmp_path_factory.mktemp("data"))


def command(bundle: Path, *arguments: object) -> Any:
    options = ["--bundle", bundle, "--backend", "onnxruntime-cpu", "--threads", 1]
    with noting_logs():
        return CliRunner().invoke(
            augment, list(map(str, (*arguments, *options))), catch_exceptions=False
        )


def test_writes_a_balanced_dataset_and_lists_what_was_skipped(
    tiny_bundle_path: Path, folder: Path, tmp_path: Path
):
    out = tmp_path / "out"
    found = command(tiny_bundle_path, folder, "--out", out, "--balance", 4)
    assert found.exit_code == 0
    assert "fear: 1 + 3" in found.output and "2 files skipped" in found.output
    lines = (run_file.folder(out) / "skipped.jsonl").read_text().splitlines()
    skipped = {json.loads(line)["file_name"] for line in lines}
    assert skipped == {"fear/broken.png", "stray.png"}
    assert {path.name for path in (out / "fear").iterdir()} >= {"00000000.png"}
    counts = Counter(item.label for item in read_dataset(out).items)
    assert counts == {"happy": 5, "sad": 4, "fear": 4}
    card = (out / "README.md").read_text()
    assert "synfer-rt augment DATASET" in card and "--balance 4" in card
    fear = next(line for line in card.splitlines() if "| fear |" in line)
    assert fear.split(" | ")[1:4] == ["fear", "1", "3"]


def test_lists_each_of_several_files_of_one_name(tiny_bundle_path: Path, tmp_path: Path):
    with tarfile.open(tmp_path / "0.tar", "w") as tar:
        for shade in (10, 20, 30):
            entry = tarfile.TarInfo("happy/0.jpg")
            entry.size = len(picture(shade))
            tar.addfile(entry, io.BytesIO(picture(shade)))
    found = command(tiny_bundle_path, tmp_path / "0.tar", "--out", tmp_path / "out")
    assert found.exit_code == 0 and "2 files skipped" in found.output
    listed = run_file.folder(tmp_path / "out") / "skipped.jsonl"
    assert [json.loads(line)["file_name"] for line in listed.open()] == ["0.tar/happy/0.jpg"] * 2


def test_shows_the_first_additions_of_each_class(
    tiny_bundle_path: Path, folder: Path, tmp_path: Path
):
    out = tmp_path / "out"
    found = command(tiny_bundle_path, folder, "--out", out, "--balance", 4)
    page = run_file.folder(out) / "contact-sheet.html"
    assert f"13 images in {out}; look at {page}\n" in found.output
    png = base64.b64decode(page.read_text().partition("base64,")[2].partition('"')[0])
    additions = [s for s in read(out) if s[0]["origin"] == "augmented"]
    assert Counter(record["label"] for record, _ in additions) == {"sad": 2, "fear": 3}
    wanted = contact_sheet(additions, ["sad", "fear"])
    np.testing.assert_array_equal(decoded(png), np.asarray(wanted, np.int16))


def test_without_additions_there_is_nothing_to_show(
    tiny_bundle_path: Path, folder: Path, tmp_path: Path
):
    out = tmp_path / "out"
    found = command(tiny_bundle_path, folder, "--out", out, "--balance", 1)
    assert found.exit_code == 0 and f"8 images in {out}\n" in found.output
    assert not (run_file.folder(out) / "contact-sheet.html").exists()


def test_says_which_labels_it_did_not_understand(
    tiny_bundle_path: Path, folder: Path, tmp_path: Path
):
    shutil.copytree(folder, tmp_path / "data")
    shutil.copytree(folder / "sad", tmp_path / "data" / "calm")
    said = command(tiny_bundle_path, tmp_path / "data", "--out", tmp_path / "a").stderr
    count = len(list((folder / "sad").iterdir()))
    assert f"{count} of " in said and "labels not understood, so left out" in said
    assert f"{count}: it is not in a class folder: 'calm' is not a known expression" in said


def test_says_when_size_tells_additions_apart(tiny_bundle_path: Path, folder: Path, tmp_path: Path):
    found = command(tiny_bundle_path, folder, "--out", tmp_path / "a")
    assert "32x32, but not all originals are" in found.stderr
    options = ("--out", tmp_path / "b", "--decode-originals")
    assert "not all originals" not in command(tiny_bundle_path, folder, *options).stderr
    sizes = {decoded(png).shape for _, png in read(tmp_path / "b")}
    assert sizes == {(32, 32, 3)}
    again = command(tiny_bundle_path, tmp_path / "b", "--out", tmp_path / "c")
    assert again.exit_code == 0 and "not all originals" not in again.stderr


def test_parquet_has_where_each_image_comes_from(
    tiny_bundle_path: Path, folder: Path, tmp_path: Path
):
    out = tmp_path / "out"
    options = ("--out", out, "--balance", 4, "--format", "parquet")
    found = command(tiny_bundle_path, folder, *options)
    assert found.exit_code == 0
    records = [record for record, _ in read(out)]
    assert Counter(record["origin"] for record in records) == {"original": 8, "augmented": 5}
    for record in records:
        assert record["source"].startswith(f"{record['label']}/")
        made = record["origin"] == "augmented"
        assert record["noise_scale"] == (8.0 if made else 0.0)
        assert record["attempt"] in (range(4) if made else [0])
        assert record["rectified"] is False


def test_resumes_beside_the_table_that_it_reads(
    tiny_bundle_path: Path, folder: Path, tmp_path: Path
):
    shutil.copytree(folder, tmp_path / "data")
    listing, out = tmp_path / "data" / "list.csv", tmp_path / "data" / "out"
    listing.write_text("file,label\nhappy/0.png,happy\nhappy/1.png,happy\nsad/0.png,sad\n")
    arguments = (tiny_bundle_path, listing, "--out", out)
    assert command(*arguments).exit_code == 0
    (out / "metadata.jsonl").rename(partial(out / "metadata.jsonl"))  # killed before its end
    assert command(*arguments, "--resume").exit_code == 0
    assert len(list(read(out))) == 4


def test_resumes_its_own_run_and_no_other(tiny_bundle_path: Path, folder: Path, tmp_path: Path):
    arguments = (folder, "--out", tmp_path / "out", "--balance", 3)
    command(tiny_bundle_path, *arguments)
    assert command(tiny_bundle_path, *arguments, "--resume").exit_code == 0
    with pytest.raises(UserError, match="another noise scale"):
        command(tiny_bundle_path, *arguments, "--resume", "--noise-scale", 2)
    with pytest.raises(UserError, match="another decode originals"):
        command(tiny_bundle_path, *arguments, "--resume", "--decode-originals")


def test_resumes_with_no_other_files(tiny_bundle_path: Path, folder: Path, tmp_path: Path):
    data = shutil.copytree(folder, tmp_path / "data")
    arguments = (tiny_bundle_path, data, "--out", tmp_path / "out", "--balance", 1)
    assert command(*arguments).exit_code == 0
    Image.new("RGB", (40, 36)).save(data / "happy" / "0.png")
    with pytest.raises(UserError, match="another dataset"):
        command(*arguments, "--resume")


def test_an_output_that_cannot_be_looked_at_is_refused(
    tiny_bundle_path: Path, folder: Path, tmp_path: Path
):
    (tmp_path / "loop").symlink_to("loop")
    for out in ("loop", "a" * 300):
        with pytest.raises(UserError):
            command(tiny_bundle_path, folder, "--out", tmp_path / out, "--balance", 1)
