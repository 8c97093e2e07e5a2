"""Each kind of damage to an output is found, with its place."""

from __future__ import annotations

import json
import os
import re
import shutil
import tarfile

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner

from synfer_rt.commands.cli import main
from synfer_rt.data.writers import FORMATS, open_output, run_file, tar_samples
from synfer_rt.jobs.verify import faults
from tests.data.writers.small_run import SmallRun

SHARDS = {"webdataset": "{:06d}.tar", "parquet": "data-{:05d}.parquet"}


def written(out, format, change=lambda record: record, count=10):
    run = SmallRun()
    writer = open_output(out, run.settings(format, count), resume=False, shard_size=4)
    writer.write([change(run.record(i)) for i in range(count)], [run.png(i) for i in range(count)])
    writer.finish()
    return out


def verify(out):
    result = CliRunner().invoke(main, ["verify", str(out)])
    assert result.exit_code in (0, 1), result.output
    lines = result.stdout.splitlines()
    assert (result.exit_code == 1) == ("all 10 images are there and whole" not in lines[-1])
    return lines


def found(out, *patterns):
    """These faults and no others are found."""
    lines = verify(out)
    assert len(lines) == len(patterns), lines
    for line, pattern in zip(lines, patterns, strict=True):
        assert re.search(pattern, line), lines


@pytest.mark.parametrize("format", FORMATS)
def test_a_whole_run_is_one_line(tmp_path, format):
    out = written(tmp_path / "out", format)
    assert verify(out) == [f"{out}: all 10 images are there and whole."]


@pytest.mark.parametrize("format", SHARDS)
def test_a_shard_that_is_cut_short(tmp_path, format):
    out = written(tmp_path / "out", format)
    shard = out / SHARDS[format].format(1)
    os.truncate(shard, shard.stat().st_size // 2)
    found(out, rf"{shard.name}: it is cut short or damaged", "images are missing: .*7")


@pytest.mark.parametrize("format", SHARDS)
def test_a_shard_that_is_gone_and_one_too_many(tmp_path, format):
    out = written(tmp_path / "out", format)
    (out / SHARDS[format].format(2)).rename(out / SHARDS[format].format(7))
    missing = "2 of 10 images are missing: 8 to 9"
    gone, more = (SHARDS[format].format(number) for number in (2, 7))
    found(out, f"{gone}: it is missing", f"{more}: it is not a shard", missing)


@pytest.mark.parametrize("lost", [0, 1, 2, 3])
def test_a_tar_without_its_end_marker(tmp_path, lost):
    out = written(tmp_path / "out", "webdataset")
    tar = out / "000002.tar"
    with tarfile.open(tar) as file:
        end = file.getmembers()[-1].offset_data + 512
    os.truncate(tar, end + 512 * lost)
    if lost < 2:
        found(out, "000002.tar: it is cut short or damaged after 00000009")
    else:
        assert len(verify(out)) == 1


def test_a_class_folder_that_is_gone(tmp_path):
    out = written(tmp_path / "out", "imagefolder")
    shutil.rmtree(out / "happy")
    found(out, "^happy/: the class folder and its 3 images are missing")


def test_images_that_are_gone_cut_short_or_damaged(tmp_path):
    out = written(tmp_path / "out", "imagefolder")
    (out / "happy/00000001.png").unlink()
    os.truncate(out / "sad/00000002.png", 60)
    png = out / "neutral/00000003.png"
    data = bytearray(png.read_bytes())
    data[len(data) // 2] ^= 255
    png.write_bytes(data)
    found(
        out,
        r"metadata.jsonl line 2: its image happy/00000001.png is missing",
        r"sad/00000002.png \(metadata.jsonl line 3\): its image: it is",
        r"neutral/00000003.png \(metadata.jsonl line 4\): its image: it is damaged",
    )


def test_metadata_and_images_that_do_not_belong_together(tmp_path):
    out = written(tmp_path / "out", "imagefolder")
    metadata = out / "metadata.jsonl"
    lines = metadata.read_text("utf-8").splitlines(keepends=True)
    del lines[4]
    lines[5] = lines[2]
    lines[6] = "{\n"
    metadata.write_text("".join(lines), "utf-8")
    found(
        out,
        "metadata.jsonl line 6.: the index 2 occurs twice, also at sad/00000002.png .*line 3",
        "metadata.jsonl line 7: it is not the record",
        "happy/00000004.png: no line of metadata.jsonl names it",
        "happy/00000007.png: no line of metadata.jsonl names it",
        "neutral/00000006.png: no line of metadata.jsonl names it",
        "3 of 10 images are missing: 4, 6 to 7",
    )


@pytest.mark.parametrize("format", FORMATS)
def test_folders_that_readers_would_take_for_classes(tmp_path, format):
    out = written(tmp_path / "out", format)
    (out / "empty").mkdir()
    (out / ".ipynb_checkpoints").mkdir()
    (out / "more" / "below").mkdir(parents=True)
    (out / "more" / "below" / "a.png").touch()
    why = "no sample of the run lies in this folder"
    found(out, *(rf"^{name}/: {why}" for name in (r"\.ipynb_checkpoints", "empty", "more")))


@pytest.mark.parametrize("format", FORMATS)
def test_hidden_files_of_file_managers_are_no_fault(tmp_path, format):
    out = written(tmp_path / "out", format)
    (out / ".DS_Store").touch()
    (line,) = verify(out)
    assert "all 10 images are there and whole" in line


@pytest.mark.parametrize("format", SHARDS)
def test_a_folder_in_the_place_of_a_shard(tmp_path, format):
    out = written(tmp_path / "out", format)
    shard = out / SHARDS[format].format(0)
    shard.unlink()
    shard.mkdir()
    found(out, f"^{shard.name}: it is missing", f"^{shard.name}/: no sample", "4 of 10 images")


@pytest.mark.parametrize("name", ["../photo.png", "/etc/passwd", "happy/../../x.png", 7])
def test_a_line_that_names_what_lies_elsewhere_is_not_followed(tmp_path, name):
    out = written(tmp_path / "out", "imagefolder")
    metadata = out / "metadata.jsonl"
    lines = metadata.read_text("utf-8").splitlines(keepends=True)
    lines[1] = json.dumps(json.loads(lines[1]) | {"file_name": name}) + "\n"
    metadata.write_text("".join(lines), "utf-8")
    found(
        out,
        "metadata.jsonl line 2: it names .* instead of happy/00000001.png",
        "happy/00000001.png: no line",
        "1 of 10 images are missing: 1",
    )


def test_labels_that_disagree_with_their_folder(tmp_path):
    out = written(tmp_path / "out", "imagefolder")
    metadata = out / "metadata.jsonl"
    text = metadata.read_text("utf-8")
    metadata.write_text(text.replace('"label": "happy"', '"label": "sad"', 1), "utf-8")
    found(
        out,
        "line 2.: its label is sad, but it lies in the folder happy",
        "line 2.: its label is sad and happy was requested, but rectified says otherwise",
    )


def rewritten(tar, change):
    with tarfile.open(tar) as file:
        members = [(m.name, file.extractfile(m).read()) for m in file]  # type: ignore[union-attr]
    tar.write_bytes(b"".join(tar_samples.member(*one) for one in change(members)) + tar_samples.END)


def test_a_label_that_disagrees_with_its_cls(tmp_path):
    out = written(tmp_path / "out", "webdataset")
    rewritten(out / "000000.tar", lambda m: [*m[:2], (m[2][0], b"3"), *m[3:]])
    found(out, "000000.tar/00000000: its label is neutral, but its .cls says surprise")


def test_keys_of_a_tar_that_are_doubled_lacking_or_strange(tmp_path):
    out = written(tmp_path / "out", "webdataset")
    strange = ("00000002.txt", b"x")
    rewritten(out / "000000.tar", lambda m: [m[0], *m[:8], strange, *m[9:], *m[3:6]])
    found(
        out,
        "000000.tar/00000000.png: it occurs twice",
        "000000.tar/00000002.txt: it is not a file of a sample",
        "000000.tar/00000002: its .cls is missing",
        "000000.tar/00000001: the index 1 occurs twice",
    )


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize(
    ("field", "value", "said"),
    [
        ("probabilities", {"neutral": float("nan"), "happy": 0.5, "sad": 0.5}, "neutral is nan"),
        ("probabilities", {"neutral": 0.5, "happy": 0.5, "sad": 0.5}, "add up to 1.5"),
        (
            "probabilities",
            {"neutral": 1.5, "happy": -0.5, "sad": 0.0},
            "must be a number of 0 to 1, not 1.5",
        ),
        ("aus", {"AU6": float("inf"), "AU12": 0.0}, "AU6 is inf"),
        ("guidance", float("nan"), "guidance is nan"),
    ],
)
def test_numbers_that_are_none(tmp_path, format, field, value, said):
    def change(record):
        return record | ({field: value} if record["index"] == 5 else {})

    lines = verify(written(tmp_path / "out", format, change))
    assert lines and all(re.search("0*5|row 1", line) for line in lines)
    assert said in lines[0]


@pytest.mark.parametrize("format", FORMATS)
def test_a_probability_of_zero_for_all_is_no_fault(tmp_path, format):
    nobody = {"neutral": 0.0, "happy": 0.0, "sad": 0.0}
    out = written(tmp_path / "out", format, lambda record: record | {"probabilities": nobody})
    assert len(verify(out)) == 1


def test_rows_of_parquet_that_are_doubled_or_lack_their_image(tmp_path):
    out = written(tmp_path / "out", "parquet")
    shard = out / "data-00000.parquet"
    rows = pq.read_table(shard)
    first = rows.slice(0, 1).to_pylist()
    first[0]["image"] = None
    lost = pa.Table.from_pylist(first, rows.schema)
    pq.write_table(pa.concat_tables([lost, rows.slice(1, 1), rows.slice(1, 3)]), shard)
    found(
        out,
        "data-00000.parquet row 0: its image is missing",
        "data-00000.parquet row 2: the index 1 occurs twice, also at data-00000.parquet row 1",
    )


@pytest.mark.parametrize("images", [None, [b"png"] * 2], ids=["no column", "bytes alone"])
def test_a_shard_of_parquet_without_images(tmp_path, images):
    out = written(tmp_path / "out", "parquet")
    columns = {"index": [8, 9]} | ({} if images is None else {"image": images})
    pq.write_table(pa.table(columns), out / "data-00002.parquet")
    why = "data-00002.parquet: it has no column image with the images' bytes"
    found(out, why, "2 of 10 images are missing: 8 to 9")


@pytest.mark.parametrize("older", [False, True])
@pytest.mark.parametrize("format", FORMATS)
def test_a_run_that_goes_on_is_not_whole(tmp_path, format, older):
    run, out = SmallRun(), tmp_path / "out"
    writer = open_output(out, run.settings(format), resume=False, shard_size=4)
    run.write(writer, 6)
    writer.close()
    for file in list(run_file.folder(out).iterdir()) if older else []:
        file.rename(out / file.name)
    found(out, r"\.partial: it is not whole yet")


@pytest.mark.parametrize("format", FORMATS)
def test_what_is_told_of_progress_ends_with_the_count(tmp_path, format):
    out, told = written(tmp_path / "out", format), []
    assert not list(faults(out, run_file.load(out), told.append))
    assert told == list(range(1, 11))


def test_what_is_no_run_is_refused(tmp_path):
    result = CliRunner().invoke(main, ["verify", str(tmp_path)])
    assert result.exit_code == 2 and "holds no run" in result.output
    out = written(tmp_path / "out", "parquet")
    run_file.path(out).write_text('{"format": "zip"}')
    result = CliRunner().invoke(main, ["verify", str(out)])
    assert result.exit_code == 2 and "is damaged" in result.output
