"""The imagefolder format."""

from __future__ import annotations

import io
import json

import numpy as np
import pytest
from PIL import Image

from synfer_rt.data.writers import open_output, run_file
from synfer_rt.errors import UserError


def write_all(run, out):
    writer = open_output(out, run.settings("imagefolder"), resume=False)
    run.write(writer, 10)
    writer.finish()


def test_images_lie_in_the_folder_of_their_label(run, tmp_path):
    write_all(run, tmp_path / "out")
    names = {p.relative_to(tmp_path / "out").as_posix() for p in (tmp_path / "out").rglob("*.png")}
    assert names == {f"{run.record(i)['label']}/{i:08d}.png" for i in range(10)}
    image = np.asarray(Image.open(tmp_path / "out/happy/00000004.png"))
    np.testing.assert_array_equal(image, run.image(4))


def test_metadata_has_a_line_a_sample_that_names_its_file(run, tmp_path):
    write_all(run, tmp_path / "out")
    lines = (tmp_path / "out/metadata.jsonl").read_text("utf-8").splitlines()
    records = [json.loads(line) for line in lines]
    assert [record["index"] for record in records] == list(range(10))
    for record in records:
        png = (tmp_path / "out" / record["file_name"]).read_bytes()
        Image.open(io.BytesIO(png)).verify()
        assert png == run.png(record["index"])


def test_the_metadata_has_its_final_name_only_when_whole(run, tmp_path):
    writer = open_output(tmp_path / "out", run.settings("imagefolder"), resume=False)
    run.write(writer, 10)
    assert not (tmp_path / "out/metadata.jsonl").exists()
    writer.finish()
    assert (tmp_path / "out/metadata.jsonl").exists()


@pytest.mark.parametrize(
    "line", ["[1]", '{"index": 3}', '{"b": 2}', "[" * 100_000, '{"index": 3, ']
)
def test_a_line_that_is_no_record_is_made_again(run, tmp_path, line):
    writer = open_output(tmp_path, run.settings("imagefolder"), resume=False)
    run.write(writer, 3)
    writer.close()
    with (run_file.folder(tmp_path) / "metadata.jsonl.partial").open("a") as journal:
        journal.write(line + "\n")
    assert open_output(tmp_path, run.settings("imagefolder"), resume=True).done == 3


@pytest.mark.parametrize("line", [0, 5, 9])
def test_metadata_without_a_line_is_a_journal_again(run, tmp_path, line):
    write_all(run, tmp_path / "out")
    metadata = tmp_path / "out/metadata.jsonl"
    whole = metadata.read_bytes()
    lines = whole.splitlines(keepends=True)
    metadata.write_bytes(b"".join(lines[:line] + lines[line + 1 :]))
    writer = open_output(tmp_path / "out", run.settings("imagefolder"), resume=True)
    assert list(writer.lacking) == list(range(line, 10))
    run.write(writer, 10)
    writer.finish()
    assert metadata.read_bytes() == whole


def test_an_image_that_comes_out_under_another_label_is_refused(run, tmp_path):
    write_all(run, tmp_path / "out")
    (tmp_path / "out/happy/00000004.png").unlink()
    writer = open_output(tmp_path / "out", run.settings("imagefolder"), resume=True)
    with pytest.raises(UserError, match=r"00000004\.png was lost, .* is now sad/"):
        writer.write([run.record(4) | {"label": "sad"}], [run.png(4)])
    assert not (tmp_path / "out/sad/00000004.png").exists()


def test_an_image_that_went_missing_is_made_again(run, tmp_path):
    writer = open_output(tmp_path / "out", run.settings("imagefolder"), resume=False)
    run.write(writer, 6)
    writer.close()
    (tmp_path / "out/happy/00000004.png").unlink()
    resumed = open_output(tmp_path / "out", run.settings("imagefolder"), resume=True)
    assert (resumed.done, list(resumed.lacking)) == (5, [4, 6, 7, 8, 9])
