"""Labelling of images that exist, on the tiny bundle and real files."""

from __future__ import annotations

import csv
import dataclasses
import json
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from synfer_rt.backends.loaded_engines import LoadedEngines
from synfer_rt.bundle import Bundle, open_bundle
from synfer_rt.commands.label import label
from synfer_rt.commands.notes import noting_logs
from synfer_rt.data.datasets import Dataset, read_dataset
from synfer_rt.data.label_table import Table
from synfer_rt.data.writers.atomic import partial
from synfer_rt.errors import UserError
from synfer_rt.jobs.label import label_images, label_problem
from synfer_rt.judging.acceptance import acceptance
from synfer_rt.judging.annotators import Annotators, Seen
from synfer_rt.records import Record, blank_line


@pytest.fixture(scope="module")
def annotators(voting_bundle: Bundle) -> Annotators:
    return Annotators(LoadedEngines(voting_bundle, "onnxruntime-cpu", threads=1))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eleven images in two classes' folders, a broken one and a text among them."""
    root = tmp_path_factory.mktemp("data")
    draw = np.random.default_rng(0)
    for i in range(11):
        path = root / ("happy" if i % 2 else "sad") / f"{i:02d}.png"
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(draw.integers(0, 256, (40, 30, 3), np.uint8)).save(path)
    (root / "happy" / "05b.jpg").write_bytes(b"\xff\xd8\xff torn")
    (root / "notes.txt").write_text("not an image")
    return root


def blank(annotators: Annotators) -> Record:
    return blank_line(annotators.bundle, annotators.members, annotators.engines.backend)


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def run(
    dataset: Dataset, annotators: Annotators, path: Path, batch: int = 4, resume: bool = False
) -> list[dict[str, Any]]:
    table = Table(path, {"images": dataset.digest}, blank(annotators), resume)
    label_images(dataset, annotators, table, acceptance(accept_rate=0.5), batch)
    return lines(path)


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


class _Stop(Exception):
    pass


@pytest.mark.parametrize("after", [4, 8])
def test_an_interrupted_run_resumes_to_the_same_table(
    folder: Path, annotators: Annotators, tmp_path: Path, after: int
):
    dataset = read_dataset(folder)
    whole = run(dataset, annotators, tmp_path / "whole.jsonl")

    def stop(done: int) -> None:
        if done >= after:
            raise _Stop

    path = tmp_path / "cut.jsonl"
    table = Table(path, {"images": dataset.digest}, blank(annotators), False)
    with pytest.raises(_Stop):
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
            raise _Stop

    dataset = read_dataset(folder)
    table = Table(tmp_path / "cut.jsonl", {"images": dataset.digest}, blank(annotators), False)
    with pytest.raises(_Stop):
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


class TestCommand:
    def command(self, bundle: Path, *arguments: object) -> Any:
        options = ["--bundle", bundle, "--backend", "onnxruntime-cpu", "--threads", 1]
        arguments = (*arguments, *options)
        with noting_logs():
            return CliRunner().invoke(label, list(map(str, arguments)), catch_exceptions=False)

    def test_labels_a_folder_into_a_directory(
        self, tiny_bundle_path: Path, folder: Path, tmp_path: Path
    ):
        found = self.command(tiny_bundle_path, folder, "--out", tmp_path / "out")
        assert found.exit_code == 0
        assert "11 images labelled" in found.output and "2 files skipped" in found.output
        assert "happy/05b.jpg" in found.output
        assert len(lines(tmp_path / "out" / "labels.jsonl")) == 13
        again = self.command(tiny_bundle_path, folder, "--out", tmp_path / "out", "--resume")
        assert "already complete" in again.output
        with pytest.raises(UserError, match="another threshold"):
            options = ("--out", tmp_path / "out", "--resume", "--threshold", 0.9)
            self.command(tiny_bundle_path, folder, *options)

    @pytest.mark.parametrize("suffix", [".jsonl", ".csv"])
    def test_labels_what_has_no_name_in_utf8(
        self, tiny_bundle_path: Path, folder: Path, tmp_path: Path, suffix: str
    ):
        (tmp_path / "data").mkdir()
        shutil.copy(folder / "sad" / "00.png", tmp_path / "data" / os.fsdecode(b"caf\xe9.png"))
        (tmp_path / "data" / os.fsdecode(b"\xe9.txt")).write_text("not an image")
        out = (tmp_path / "labels").with_suffix(suffix)
        found = self.command(tiny_bundle_path, tmp_path / "data", "--out", out)
        assert found.exit_code == 0 and "1 images labelled" in found.output
        assert out.read_text().count("udce9") == 2

    @pytest.mark.parametrize("out", ["loop", "loop/t.csv", "a" * 300])
    def test_an_output_that_cannot_be_looked_at_is_refused(
        self, tiny_bundle_path: Path, folder: Path, tmp_path: Path, out: str
    ):
        (tmp_path / "loop").symlink_to("loop")
        with pytest.raises(UserError, match="cannot be accessed"):
            self.command(tiny_bundle_path, folder, "--out", tmp_path / out)

    def test_resumes_with_no_other_files(
        self, tiny_bundle_path: Path, folder: Path, tmp_path: Path
    ):
        image, out = tmp_path / "a.png", tmp_path / "t.jsonl"
        for number in (0, 2):
            shutil.copy(folder / "sad" / f"{number:02d}.png", image)
            if not number:
                self.command(tiny_bundle_path, image, "--out", out)
        with pytest.raises(UserError, match=r"another dataset \(.*sizes or modification times"):
            self.command(tiny_bundle_path, image, "--out", out, "--resume")

    def test_labels_single_images(self, tiny_bundle_path: Path, folder: Path, tmp_path: Path):
        names = [folder / "sad" / "00.png", folder / "happy" / "01.png"]
        found = self.command(tiny_bundle_path, *names, "--out", tmp_path / "t.csv")
        assert found.exit_code == 0 and "2 images labelled, 0 rectified" in found.output

    def test_an_image_that_is_listed_twice_has_one_line(
        self, tiny_bundle_path: Path, folder: Path, tmp_path: Path
    ):
        (tmp_path / "data").mkdir()
        shutil.copy(folder / "sad" / "00.png", tmp_path / "data" / "x.png")
        (tmp_path / "data" / "a.csv").write_text("file,label\nx.png,sad\nx.png,fear\n")
        found = self.command(tiny_bundle_path, tmp_path / "data", "--out", tmp_path / "t.jsonl")
        assert "a.csv: x.png: it says fear, but an earlier row says sad" in found.output
        names = [line["file_name"] for line in lines(tmp_path / "t.jsonl")]
        assert names == ["x.png", "a.csv: x.png"]

    def test_resumes_beside_the_table_that_it_reads(
        self, tiny_bundle_path: Path, folder: Path, tmp_path: Path
    ):
        shutil.copytree(folder, tmp_path / "data")
        listing, out = tmp_path / "data" / "list.csv", tmp_path / "data" / "labels.jsonl"
        listing.write_text("file,label\nsad/00.png,sad\nhappy/01.png,happy\n")
        partial(out).touch()  # killed at once
        found = self.command(tiny_bundle_path, listing, "--out", out, "--resume")
        assert found.exit_code == 0 and len(lines(out)) == 2

    @pytest.mark.parametrize("suffix", [".jsonl", ".csv"])
    def test_the_table_is_a_dataset_where_it_lies(
        self, tiny_bundle_path: Path, folder: Path, tmp_path: Path, suffix: str
    ):
        for name in ("photos", "others"):  # of the same names
            for part in ("a", "b"):
                (tmp_path / name / part).mkdir(parents=True)
                shutil.copy(folder / "sad" / "00.png", tmp_path / name / part / "0.png")
        out = tmp_path / f"labels{suffix}"
        self.command(tiny_bundle_path, tmp_path / "photos", "--out", out)
        dataset = read_dataset(out)
        assert [item.name for item in dataset.items] == ["photos/a/0.png", "photos/b/0.png"]
        assert all(item.label for item in dataset.items) and not dataset.skipped

    def test_a_table_that_lies_elsewhere_says_where_it_must_lie(
        self, tiny_bundle_path: Path, folder: Path, tmp_path: Path
    ):
        (tmp_path / "tables").mkdir()
        shutil.copytree(folder / "sad", tmp_path / "photos")
        out = tmp_path / "tables" / "labels.csv"
        self.command(tiny_bundle_path, tmp_path / "photos", "--out", out)
        with pytest.raises(UserError, match=rf"images in {tmp_path}/photos; move it beside that"):
            read_dataset(out)
        out.rename(tmp_path / "labels.csv")
        assert {i.name for i in read_dataset(tmp_path / "labels.csv").items} >= {"photos/00.png"}

    def test_never_writes_into_the_input(self, tiny_bundle_path: Path, folder: Path):
        before = sorted(folder.rglob("*"))
        with pytest.raises(UserError, match="inside the input"):
            self.command(tiny_bundle_path, folder, "--out", folder / "labels.jsonl")
        assert sorted(folder.rglob("*")) == before


class TestLabelsThatAreThere:
    """What the command says of labels that the dataset has, understood or not."""

    command = TestCommand.command

    def table(self, root: Path, text: str, name: str = "list.csv") -> Path:
        """A folder of three images and a table that names them."""
        root.mkdir()
        for i in range(3):
            Image.new("RGB", (20, 20), (40 * i, 80, 120)).save(root / f"{i}.png")
        (root / name).write_text(text)
        return root

    def test_numbers_without_a_scheme_are_counted_with_the_reason(
        self, tiny_bundle_path: Path, tmp_path: Path
    ):
        data = self.table(tmp_path / "d", "image,label\n0.png,1\n1.png,1\n2.png,happy\n")
        found = self.command(tiny_bundle_path, data, "--out", tmp_path / "t.jsonl")
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
        self, tiny_bundle_path: Path, tmp_path: Path, how: tuple[object, ...]
    ):
        text = "subDirectory_filePath,expression\n0.png,8\n1.png,9\n2.png,10\n"
        data = self.table(tmp_path / "d", text)
        found = self.command(tiny_bundle_path, data, "--out", tmp_path / "t.jsonl", *how)
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
        self, tiny_bundle_path: Path, tmp_path: Path, asked: tuple[str, str]
    ):
        data = self.table(tmp_path / "d", "image,label\n0.png,9\n1.png,wry\n2.png,bored\n")
        with pytest.raises(UserError, match=r"No label of .* is understood; .* its label"):
            self.command(tiny_bundle_path, data, "--out", tmp_path / "t.jsonl", *asked)
        assert not (tmp_path / "t.jsonl").exists()

    def test_a_table_that_is_left_out_is_named_where_labels_were_asked_for(
        self, tiny_bundle_path: Path, folder: Path, tmp_path: Path
    ):
        shutil.copytree(folder / "sad", tmp_path / "data" / "images")
        (tmp_path / "data" / "labels.csv").write_text("who,mood\nann,happy\n")
        options = ("--label-scheme", "raf-db", "--bundle", tiny_bundle_path)
        arguments = map(str, (tmp_path / "data", "--out", tmp_path / "t.jsonl", *options))
        with pytest.raises(UserError, match=r"labels\.csv \(none of its columns who, mood names"):
            CliRunner().invoke(label, list(arguments), catch_exceptions=False)

    def test_of_images_without_labels_nothing_was_asked(
        self, tiny_bundle_path: Path, tmp_path: Path
    ):
        data = self.table(tmp_path / "d", "image\n0.png\n1.png\n2.png\n")
        found = self.command(tiny_bundle_path, data, "--out", tmp_path / "t.csv")
        assert "3 of them have no label to check: asked and accepted are false" in found.output
        assert ", accepted" not in found.output
        with (tmp_path / "t.csv").open(newline="") as file:
            rows = list(csv.DictReader(file))
        assert [(row["asked"], row["accepted"]) for row in rows] == [("False", "False")] * 3
        self.command(tiny_bundle_path, data, "--out", tmp_path / "u.jsonl", "--threshold", 0)
        found = lines(tmp_path / "u.jsonl")
        assert [(r["asked"], r["accepted"]) for r in found] == [(True, True)] * 3

    def test_a_class_that_the_bundle_lacks_is_said_and_not_accepted(
        self, annotators: Annotators, tmp_path: Path
    ):
        data = self.table(tmp_path / "d", "image,label\n0.png,contempt\n")
        item = read_dataset(data).items[0]
        seven = dataclasses.replace(annotators.bundle, label_scheme="affectnet-7")
        assert label_problem(item, annotators.bundle) is None
        assert "does not know the class contempt" in str(label_problem(item, seven))

    def test_a_run_goes_on_past_labels_that_are_not_understood(
        self, annotators: Annotators, tmp_path: Path
    ):
        data = self.table(tmp_path / "d", "image,label\n0.png,sad\n1.png,wry\n2.png,happy\n")
        dataset = read_dataset(data)
        whole = run(dataset, annotators, tmp_path / "whole.jsonl", 1)

        def stop(done: int) -> None:
            if done == 2:
                raise _Stop

        table = Table(tmp_path / "cut.jsonl", {"images": dataset.digest}, blank(annotators), False)
        with pytest.raises(_Stop):
            label_images(dataset, annotators, table, acceptance(accept_rate=0.5), 1, stop)
        assert run(dataset, annotators, tmp_path / "cut.jsonl", 1, resume=True) == whole

    @pytest.mark.parametrize("suffix", [".jsonl", ".csv"])
    def test_a_table_of_an_older_release_is_a_dataset(
        self, voting_bundle: Bundle, folder: Path, tmp_path: Path, suffix: str
    ):
        data, out = shutil.copytree(folder, tmp_path / "data"), tmp_path / f"labels{suffix}"
        self.command(voting_bundle.path, data, "--out", out)
        today = {item.name: item.label for item in read_dataset(out).items}
        text = out.read_text()
        assert "feranno" in text and len({*today.values()}) > 1
        out.write_text(text.replace("feranno", "annotator"))
        assert {item.name: item.label for item in read_dataset(out).items} == today

    def test_its_table_gives_no_label_to_what_it_did_not_understand(
        self, tiny_bundle_path: Path, tmp_path: Path
    ):
        data = self.table(tmp_path / "d", "image,label\n0.png,sad\n1.png,8\n2.png,happy\n")
        for suffix in (".jsonl", ".csv"):
            out = (data / "votes").with_suffix(suffix)
            self.command(tiny_bundle_path, data / "list.csv", "--out", out)
            voted = {item.name: item for item in read_dataset(out).items}
            assert voted["0.png"].label and voted["2.png"].label
            assert voted["1.png"].not_understood


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
