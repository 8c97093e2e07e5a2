"""Labelling of images that exist, on the tiny bundle and real files."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from synfer_rt.backends.loaded_engines import LoadedEngines
from synfer_rt.bundle import Bundle, open_bundle
from synfer_rt.data.datasets import read_dataset
from synfer_rt.data.label_table import Table
from synfer_rt.data.writers.atomic import partial
from synfer_rt.errors import UserError
from synfer_rt.jobs.label import label_images
from synfer_rt.judging.acceptance import acceptance
from synfer_rt.judging.annotators import Annotators, Seen
from tests.jobs.label_tables import Stop, blank, lines, run


def test_every_image_has_a_line_and_bad_files_say_why(
    folder: Path, annotators: Annotators, tmp_path: Path
):
    records = run(read_dataset(folder), annotators, tmp_path / "t.jsonl")
    assert [r["index"] for r in records] == list(range(13))
    bad = {r["file_name"]: r["error"] for r in records if r["error"]}
    assert set(bad) == {"happy/05b.jpg", "notes.txt"}
    good = [r for r in records if not r["error"]]
    for record in good:
        assert record["label"] == max(record["probabilities"], key=record["probabilities"].get)
        assert record["rectified"] == (record["label"] != record["given_label"])
        assert record["given_label"] == record["file_name"].split("/")[0]
        assert set(record["votes"]) == set(annotators.members)
        assert len(record["aus"]) == 41 and record["bundle"] == annotators.bundle.bundle_hash
    assert {r["accepted"] for r in good} == {True, False}


def test_the_lines_do_not_depend_on_the_batch(folder: Path, annotators: Annotators, tmp_path: Path):
    dataset = read_dataset(folder)
    small, large = (run(dataset, annotators, tmp_path / f"{b}.jsonl", b) for b in (1, 64))
    for one, other in zip(small, large, strict=True):
        decided = ("index", "file_name", "label", "rectified", "accepted", "error")
        assert [one.get(k) for k in decided] == [other.get(k) for k in decided]
        for name, share in one.get("probabilities", {}).items():
            assert other["probabilities"][name] == pytest.approx(share, abs=2e-6)


@pytest.mark.parametrize("after", [4, 8])
def test_an_interrupted_run_resumes_to_the_same_table(
    folder: Path, annotators: Annotators, tmp_path: Path, after: int
):
    dataset = read_dataset(folder)
    whole = run(dataset, annotators, tmp_path / "whole.jsonl")

    def stop(done: int) -> None:
        if done >= after:
            raise Stop

    path = tmp_path / "cut.jsonl"
    table = Table(path, {"images": dataset.digest}, blank(annotators), False)
    with pytest.raises(Stop):
        label_images(dataset, annotators, table, acceptance(accept_rate=0.5), 4, stop)
    assert not path.exists()
    with partial(path).open("ab") as journal:  # killed while a line was written
        journal.write(b'{"index": 99, "file_')
    assert run(dataset, annotators, path, resume=True) == whole
    assert not partial(path).exists()


@pytest.mark.parametrize("suffix", [".jsonl", ".csv"])
def test_a_table_begun_by_an_older_release_goes_on_with_todays_names(
    folder: Path, annotators: Annotators, tmp_path: Path, suffix: str
):
    dataset = read_dataset(folder)

    def table(name: str, resume: bool = False) -> Table:
        return Table(tmp_path / name, {"images": dataset.digest}, blank(annotators), resume)

    def finish(table: Table) -> Path:
        label_images(dataset, annotators, table, acceptance(accept_rate=0.5), 4)
        return table.path

    whole = finish(table(f"whole{suffix}")).read_text()
    ready = lines(finish(table("ready.jsonl")))
    table(f"cut{suffix}").close()
    with partial(tmp_path / f"cut{suffix}").open("a") as journal:
        for line in ready[:5]:
            journal.write(json.dumps(line).replace('"feranno"', '"annotator"') + "\n")
    resumed = table(f"cut{suffix}", resume=True)
    assert resumed.done == 5
    assert finish(resumed).read_text() == whole


def test_finished_pieces_of_a_batch_are_written(
    folder: Path, annotators: Annotators, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(
        "synfer_rt.backends.loaded_engines._POSITIONS_PER_CALL", 4 * 64
    )  # 4 images at once
    cut_up = Annotators(LoadedEngines(annotators.bundle, "onnxruntime-cpu", threads=1))

    def stop(done: int) -> None:
        if done >= 8:
            raise Stop

    dataset = read_dataset(folder)
    table = Table(tmp_path / "cut.jsonl", {"images": dataset.digest}, blank(annotators), False)
    with pytest.raises(Stop):
        label_images(dataset, cut_up, table, acceptance(accept_rate=0.5), 64, stop)
    assert table.done == 8
    whole = run(dataset, annotators, tmp_path / "whole.jsonl", 64)
    assert run(dataset, cut_up, tmp_path / "cut.jsonl", 64, resume=True) == whole


def test_a_bundle_that_changes_ends_the_run(
    folder: Path, voting_bundle: Bundle, tmp_path: Path
) -> None:
    bundle = open_bundle(shutil.copytree(voting_bundle.path, tmp_path / "bundle"))
    annotators = Annotators(LoadedEngines(bundle, "onnxruntime-cpu", threads=1))

    def change(done: int) -> None:
        (bundle.path / "feranno.onnx").write_bytes(b"another")

    dataset = read_dataset(folder)
    table = Table(tmp_path / "t.jsonl", {"images": dataset.digest}, blank(annotators), False)
    with pytest.raises(UserError, match=r"feranno\.onnx was changed or removed"):
        label_images(dataset, annotators, table, acceptance(), 4, change)
    assert table.done == 4


def test_a_csv_has_a_column_for_each_class_unit_and_vote(
    folder: Path, annotators: Annotators, tmp_path: Path
):
    dataset = read_dataset(folder)
    table = Table(tmp_path / "t.csv", {}, blank(annotators), False)
    tally = label_images(dataset, annotators, table, acceptance(), 8)
    with (tmp_path / "t.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 13 and {"contempt", "AU12", "error"} <= set(rows[0])
    shares = [float(rows[0][name]) for name in annotators.bundle.classes]
    assert sum(shares) == pytest.approx(1, abs=1e-5)
    votes = [name for name in rows[0] if name.startswith("vote.")]
    assert votes == [f"vote.{name}" for name in annotators.members]
    for row in rows:
        assert all((row[name] in annotators.bundle.classes) != bool(row["error"]) for name in votes)
    assert sum(tally.labels.values()) == 11 and len(tally.skipped) == 2


def test_an_image_of_which_an_annotator_gives_no_number_has_no_label(
    folder: Path, annotators: Annotators, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """As a network in half precision does, whose numbers overflow on some image."""
    see = annotators.see

    def overflowing(images: np.ndarray, *given: Any) -> Seen:
        seen = see(images, *given)
        seen.opinions[1].probabilities[0] = np.nan  # the first of every four
        return seen

    monkeypatch.setattr(annotators, "see", overflowing)
    found = run(read_dataset(folder), annotators, tmp_path / "labels.jsonl")
    errors = {line["index"]: line["error"] for line in found if "not finite" in line["error"]}
    assert list(errors) == [0, 4, 8]
    assert errors[0].startswith("classifier.seven gives numbers for it that are not finite")
    assert not any(line["label"] or line["accepted"] for line in found if line["error"])
