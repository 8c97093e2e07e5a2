"""What the command says of labels that the dataset has, understood or not."""

from __future__ import annotations

import csv
import dataclasses
import shutil
from pathlib import Path

import pytest
from click.testing import CliRunner
from PIL import Image

from synfer_rt.bundle import Bundle
from synfer_rt.commands.label import label
from synfer_rt.data.datasets import read_dataset
from synfer_rt.data.label_table import Table
from synfer_rt.errors import UserError
from synfer_rt.jobs.label import label_images, label_problem
from synfer_rt.judging.acceptance import acceptance
from synfer_rt.judging.annotators import Annotators
from tests.jobs.label_tables import Stop, blank, labelled, lines, run


def table_of(root: Path, text: str, name: str = "list.csv") -> Path:
    """A folder of three images and a table that names them."""
    root.mkdir()
    for i in range(3):
        Image.new("RGB", (20, 20), (40 * i, 80, 120)).save(root / f"{i}.png")
    (root / name).write_text(text)
    return root


def test_numbers_without_a_scheme_are_counted_with_the_reason(
    tiny_bundle_path: Path, tmp_path: Path
):
    data = table_of(tmp_path / "d", "image,label\n0.png,1\n1.png,1\n2.png,happy\n")
    found = labelled(tiny_bundle_path, data, "--out", tmp_path / "t.jsonl")
    assert found.exit_code == 0
    assert "2 of 3 labels not understood, so not accepted" in found.output
    reason = "its label is the number 1, which has no meaning without --label-scheme"
    assert f"2: {reason}" in found.output
    first, _, last = lines(tmp_path / "t.jsonl")
    assert (first["given_label"], first["written_label"]) == ("", "1")
    assert "`label_scheme`" in first["label_problem"] and first["accepted"] is False
    assert (last["given_label"], last["label_problem"]) == ("happy", "")
    assert last["accepted"] is not None


@pytest.mark.parametrize("how", [(), ("--threshold", 0), ("--accept-rate", 1)])
def test_what_affectnet_calls_no_face_is_never_accepted(
    tiny_bundle_path: Path, tmp_path: Path, how: tuple[object, ...]
):
    text = "subDirectory_filePath,expression\n0.png,8\n1.png,9\n2.png,10\n"
    data = table_of(tmp_path / "d", text)
    found = labelled(tiny_bundle_path, data, "--out", tmp_path / "t.jsonl", *how)
    records = lines(tmp_path / "t.jsonl")
    assert [r["accepted"] for r in records] == [False] * 3
    assert "not a class of affectnet-8: it means no face" in records[2]["label_problem"]
    assert "3 of 3 labels not understood" in found.output


@pytest.mark.parametrize(
    "asked",
    [("--format", "table"), ("--label-scheme", "fer2013-csv")],
    ids=["format", "scheme"],
)
def test_labels_that_were_asked_for_must_be_understood(
    tiny_bundle_path: Path, tmp_path: Path, asked: tuple[str, str]
):
    data = table_of(tmp_path / "d", "image,label\n0.png,9\n1.png,wry\n2.png,bored\n")
    with pytest.raises(UserError, match=r"No label of .* is understood; .* its label"):
        labelled(tiny_bundle_path, data, "--out", tmp_path / "t.jsonl", *asked)
    assert not (tmp_path / "t.jsonl").exists()


def test_a_table_that_is_left_out_is_named_where_labels_were_asked_for(
    tiny_bundle_path: Path, folder: Path, tmp_path: Path
):
    shutil.copytree(folder / "sad", tmp_path / "data" / "images")
    (tmp_path / "data" / "labels.csv").write_text("who,mood\nann,happy\n")
    options = ("--label-scheme", "raf-db", "--bundle", tiny_bundle_path)
    arguments = map(str, (tmp_path / "data", "--out", tmp_path / "t.jsonl", *options))
    with pytest.raises(UserError, match=r"labels\.csv \(none of its columns who, mood names"):
        CliRunner().invoke(label, list(arguments), catch_exceptions=False)


def test_of_images_without_labels_nothing_was_asked(tiny_bundle_path: Path, tmp_path: Path):
    data = table_of(tmp_path / "d", "image\n0.png\n1.png\n2.png\n")
    found = labelled(tiny_bundle_path, data, "--out", tmp_path / "t.csv")
    assert "3 of them have no label to check: asked and accepted are false" in found.output
    assert ", accepted" not in found.output
    with (tmp_path / "t.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["asked"], row["accepted"]) for row in rows] == [("False", "False")] * 3
    labelled(tiny_bundle_path, data, "--out", tmp_path / "u.jsonl", "--threshold", 0)
    found = lines(tmp_path / "u.jsonl")
    assert [(r["asked"], r["accepted"]) for r in found] == [(True, True)] * 3


def test_a_class_that_the_bundle_lacks_is_said_and_not_accepted(
    annotators: Annotators, tmp_path: Path
):
    data = table_of(tmp_path / "d", "image,label\n0.png,contempt\n")
    item = read_dataset(data).items[0]
    seven = dataclasses.replace(annotators.bundle, label_scheme="affectnet-7")
    assert label_problem(item, annotators.bundle) is None
    assert "does not know the class contempt" in str(label_problem(item, seven))


def test_a_run_goes_on_past_labels_that_are_not_understood(annotators: Annotators, tmp_path: Path):
    data = table_of(tmp_path / "d", "image,label\n0.png,sad\n1.png,wry\n2.png,happy\n")
    dataset = read_dataset(data)
    whole = run(dataset, annotators, tmp_path / "whole.jsonl", 1)

    def stop(done: int) -> None:
        if done == 2:
            raise Stop

    table = Table(tmp_path / "cut.jsonl", {"images": dataset.digest}, blank(annotators), False)
    with pytest.raises(Stop):
        label_images(dataset, annotators, table, acceptance(accept_rate=0.5), 1, stop)
    assert run(dataset, annotators, tmp_path / "cut.jsonl", 1, resume=True) == whole


@pytest.mark.parametrize("suffix", [".jsonl", ".csv"])
def test_a_table_of_an_older_release_is_a_dataset(
    voting_bundle: Bundle, folder: Path, tmp_path: Path, suffix: str
):
    data, out = shutil.copytree(folder, tmp_path / "data"), tmp_path / f"labels{suffix}"
    labelled(voting_bundle.path, data, "--out", out)
    today = {item.name: item.label for item in read_dataset(out).items}
    text = out.read_text()
    assert "feranno" in text and len({*today.values()}) > 1
    out.write_text(text.replace("feranno", "annotator"))
    assert {item.name: item.label for item in read_dataset(out).items} == today


def test_its_table_gives_no_label_to_what_it_did_not_understand(
    tiny_bundle_path: Path, tmp_path: Path
):
    data = table_of(tmp_path / "d", "image,label\n0.png,sad\n1.png,8\n2.png,happy\n")
    for suffix in (".jsonl", ".csv"):
        out = (data / "votes").with_suffix(suffix)
        labelled(tiny_bundle_path, data / "list.csv", "--out", out)
        voted = {item.name: item for item in read_dataset(out).items}
        assert voted["0.png"].label and voted["2.png"].label
        assert voted["1.png"].not_understood
