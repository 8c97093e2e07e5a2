"""Evaluations: what they find in a run of the shipped bundle, and what they refuse."""

from __future__ import annotations

import csv
import errno
import io
import json
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from click.testing import CliRunner
from PIL import Image

from synfer_rt import UserError, api
from synfer_rt.api import Model
from synfer_rt.bundle import Bundle
from synfer_rt.commands.cli import main
from synfer_rt.data.datasets import read_dataset
from synfer_rt.data.writers import read
from synfer_rt.faces import weights
from synfer_rt.faces.yunet import Yunet
from synfer_rt.jobs.aligning import aligner_for
from synfer_rt.jobs.evaluation.job import EvaluationJob, aligner_of
from tests.data.writers.small_run import SmallRun, finished
from tests.faces.yunet_form import put_aligned, put_picture, write_red_finder
from tests.jobs.small_network import network

COUNT = 24


@pytest.fixture(scope="module")
def place(shipped: Bundle, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of the shipped bundle, real images of which one is a copy, and two networks."""
    root = tmp_path_factory.mktemp("evaluate")
    model = Model(shipped, "onnxruntime-cpu", 1)
    model.write(root / "run", count=COUNT, format="webdataset", shard_size=10, seed=3)
    for record, png in read(root / "run"):
        folder = root / "real" / record["requested_label"]
        folder.mkdir(parents=True, exist_ok=True)
        image = np.asarray(Image.open(io.BytesIO(png)))
        if record["index"] != 5:
            image = 255 - image[::-1] // 2
        Image.fromarray(image).save(folder / f"person{record['index'] // 2}_{record['index']}.png")
    network(root / "judge.onnx", 16, 8)
    network(root / "faces.onnx", 16, 12)
    return root


@pytest.fixture(scope="module")
def found(place: Path) -> tuple[str, dict[str, Any], list[dict[str, str]]]:
    """What the command prints and writes."""
    words = ["evaluate", str(place / "run"), "--real", str(place / "real"), "--threads", "1"]
    words += ["--judge", str(place / "judge.onnx"), "affectnet-8", "16,rgb"]
    words += ["--identity", str(place / "faces.onnx"), "16,rgb,mean=0.5/0.5/0.5"]
    words += ["--person", r"person(\d+)_"]
    done = CliRunner().invoke(main, words)
    assert done.exit_code == 0, done.output
    own = place / "__run__"
    result = json.loads((own / "evaluation.json").read_text())
    return done.stdout, result, list(csv.DictReader((own / "evaluation.csv").open()))


def test_an_evaluation_says_what_it_is_of(found, shipped) -> None:
    _, result, _ = found
    assert result["run"]["images"] == result["run"]["planned"] == COUNT
    assert result["run"]["finished"] and not result["run"]["damaged"]
    assert result["real"]["images"] == COUNT and result["real"]["fitted_to"] == [64, 64]
    features = result["networks"]["features"]
    assert features["file"] == "au-reader.onnx" and features["output"] == "AU_reader/view"
    listed = shipped.manifest["files"]["au-reader.onnx"]["sha256"]
    assert features["sha256"] == listed and features["shares_weights_with"] == {}
    assert any("papers use other networks" in note for note in result["notes"])
    assert any("FID is far too large" in note for note in result["notes"])


def test_accuracy_is_that_of_the_table(found) -> None:
    _, result, rows = found
    (judge,) = result["accuracy"]
    right = sum(row["judge.judge"] == row["requested_label"] for row in rows)
    assert len(rows) == COUNT and judge["requested"]["share"] == right / COUNT
    happy = [row["judge.judge"] for row in rows if row["requested_label"] == "happy"]
    assert judge["real"]["images"] == COUNT
    assert judge["confusion"]["happy"] == {
        name: happy.count(name) for name in judge["confusion"]["happy"]
    }


def test_the_copy_is_found(found) -> None:
    _, result, rows = found
    closest = result["neighbours"]["closest"][0]
    assert closest["index"] == 5 and closest["distance"] == 0
    assert closest["real"].endswith("person2_5.png")
    (row,) = [row for row in rows if row["index"] == "5"]
    assert row["nearest_real"] == closest["real"] and row["identity_similarity"] == "1"
    assert result["identity"]["closest"][0]["similarity"] == pytest.approx(1)
    assert result["identity"]["leaked"]["share"] >= 1 / COUNT
    assert result["identity"]["leaked_of_real"]["images"] == COUNT
    assert result["neighbours"]["nearer_than_threshold"]["share"] >= 1 / COUNT
    assert result["neighbours"]["real_nearer_than_threshold"]["share"] <= 2 / COUNT
    assert result["identity"]["persons"] == COUNT / 2
    assert result["identity"]["same_person"]["images"] == COUNT


def test_distances_and_action_units_are_there(found) -> None:
    text, result, _ = found
    distances = result["distances"]
    assert distances["fid"] > 0 and distances["fid_infinite"] is None
    assert distances["kid"]["blocks"] == 12 and distances["kid"]["block_size"] == 2
    assert 0 <= distances["manifold"]["coverage"] <= 1
    units = result["action_units"]
    assert units["units"]["AU12"]["correlation"] > 0.5 and units["mean_correlation"] > 0.3
    assert 1 <= result["diversity"]["made"]["vendi"] <= COUNT
    groups = result["acceptance"]["groups"]
    assert sum(one["images"] for one in groups["age"].values()) == COUNT
    assert set(groups["gender"]) == {"female", "male"}
    for words in ("FID", "KID", "coverage", "accuracy, judge", "AU12", "identity leaked"):
        assert words in text


def test_an_unfinished_run_is_evaluated_as_far_as_it_is(found, place, shipped, tmp_path) -> None:
    shutil.copytree(place / "run", tmp_path / "run")
    shutil.copytree(place / "__run__", tmp_path / "__run__")
    (tmp_path / "run" / "000002.tar").unlink()
    settings: dict[str, Any] = {"threads": 1, "out": tmp_path / "other.json", "bundle": shipped}
    result = api.evaluate(tmp_path / "run", **settings).result
    assert result["run"]["images"] == 20 and not result["run"]["finished"]
    assert "not finished: 20 of 24" in result["notes"][0]
    assert result["distances"] is None and result["accuracy"] == []
    assert api.evaluate(tmp_path / "run", **settings).result == result


def test_what_cannot_be_evaluated_is_refused(place, shipped, tmp_path, tiny_bundle) -> None:
    run, judge = place / "run", place / "judge.onnx"
    refused: list[tuple[dict[str, Any], str]] = [
        ({"judges": [(judge, "raf-db", "16,rgb")]}, "has 8 scores, raf-db has 7 classes"),
        ({"judges": [(judge, "affectnet-8", "32,rgb")]}, "not images"),
        ({"bundle": tiny_bundle}, "made by another bundle"),
        ({"identity": (judge, "16,rgb")}, "`identity` compares with real images"),
        ({"person": "x"}, "`person` is for `identity`"),
        ({"align": True}, "`align` is for real images"),
        ({"face": "only"}, "`face` needs `align`"),
        ({"au_reader": (judge, "AU12,AU99", "16,rgb")}, "AU99"),
        ({"au_reader": (judge, "AU12,AU1", "16,rgb")}, "has 8 outputs, and 2 action units"),
        ({"out": tmp_path / "none" / "x.json"}, "`out` must be a .json file"),
        ({"subset": 3}, "`subset` must be"),
        ({"features": (judge,)}, r"`features` must be \(file, description\)"),
        ({"features": (judge, None)}, r"`features` must be \(file, description\)"),
        ({"judges": (judge, "affectnet-8", "16,rgb")}, "`judges` must be a list of"),
        ({"split": "val"}, "`split` is for real images"),
        ({"label_scheme": "raf-db"}, "`label_scheme` is for real images"),
        ({"real_format": "raf-db"}, "`real_format` is for real images"),
        ({"backend": "openvino"}, "`backend` must be one of"),
        ({"features": (place / "no.onnx", "16,rgb")}, "No such file"),
        (
            {"features": (f"{judge}:flat", "16,rgb,output=flat"), "real": place / "real"},
            "names the output twice",
        ),
    ]
    for settings, words in refused:
        with pytest.raises(UserError, match=words):
            api.evaluate(run, threads=1, **{"bundle": shipped, **settings})
    with pytest.raises(UserError, match="holds no run of synfer-rt"):
        api.evaluate(tmp_path)
    nothing: Any = None
    with pytest.raises(UserError, match="`run` must be a text or a Path"):
        api.evaluate(nothing)


def test_a_run_of_another_bundle_needs_it_for_a_judge(place, tmp_path) -> None:
    finished(SmallRun(), tmp_path / "small", "parquet")
    found = api.evaluate(tmp_path / "small", threads=1, features=(place / "judge.onnx", "16,rgb"))
    assert found.result["acceptance"]["share"] == pytest.approx(0.3)
    assert found.result["diversity"]["made"]["images"] == 10
    with pytest.raises(UserError, match=r"give the bundle that made it as `bundle`"):
        judges = [(place / "judge.onnx", "affectnet-8", "16,rgb")]
        api.evaluate(tmp_path / "small", threads=1, judges=judges)
    with pytest.raises(UserError, match=r"where its faces lie is not known"):
        api.evaluate(tmp_path / "small", threads=1, real=place / "real", align=True)


def test_real_faces_are_aligned_as_those_of_the_run(place, shipped, tmp_path) -> None:
    """So they are as near to the run's images as the same faces, cropped before."""
    detector, size = write_red_finder(tmp_path / "red.onnx"), shipped.image_size
    aligner = aligner_for(shipped, True, "largest", detector)
    assert aligner is not None
    for number, corners in enumerate(([(96, 160)], [(64, 64), (320, 224)], [])):
        put_picture(tmp_path / "real" / f"{number}.png", corners, number)
    put_aligned(tmp_path / "real", tmp_path / "faces", size, aligner)
    asked: dict[str, Any] = {"threads": 1, "bundle": shipped, "out": tmp_path / "found.json"}
    found = api.evaluate(
        place / "run", real=tmp_path / "real", align=True, face_detector=detector, **asked
    ).result
    real = found["real"]
    assert (real["images"], real["unreadable"], real["align"]) == (2, 1, aligner.settings())
    assert any("1 left out; the first: 2.png: It shows no face" in note for note in found["notes"])
    cropped = api.evaluate(place / "run", real=tmp_path / "faces", **asked).result
    assert cropped["real"]["align"] is None
    for measure in ("distances", "diversity", "neighbours"):
        assert found[measure] == cropped[measure]


def test_real_faces_that_lie_elsewhere_are_warned_of(
    place, shipped, tmp_path, monkeypatch, caplog
) -> None:
    put_picture(tmp_path / "real" / "a.png", [(96, 160)])
    monkeypatch.setattr(weights, "installed", lambda: Yunet(write_red_finder(tmp_path / "r.onnx")))
    job = EvaluationJob(read_dataset(tmp_path / "real"))
    assert aligner_of(job, shipped) is None
    assert "1 of 1 faces" in caplog.text


def test_mappings_of_schemes_count_for_judges_and_real_images(
    found, place, shipped, tmp_path
) -> None:
    """The judge of `found` by other names for its classes, and real images labelled by these."""
    others = ["calm", "glad", "down", "startled", "uneasy", "put off", "cross", "scornful"]
    mapping = dict(zip(others, shipped.classes, strict=True))
    scheme = tmp_path / "others.json"
    scheme.write_text(json.dumps({"classes": others, "mappings": {"ferplus": mapping}}))
    (tmp_path / "real").mkdir()
    files = sorted((place / "real").rglob("*.png"))[:3]
    for number, file in enumerate(files):
        shutil.copy(file, tmp_path / "real" / f"{number}.png")
    lines = "".join(f"{number}.png,glad\n" for number in range(len(files)))
    (tmp_path / "real" / "labels.csv").write_text(f"image,label\n{lines}")
    (judge,) = api.evaluate(
        place / "run",
        bundle=shipped,
        real=tmp_path / "real",
        label_scheme=scheme,
        judges=[(place / "judge.onnx", str(scheme), "16,rgb")],
        threads=1,
        out=tmp_path / "evaluation.json",
    ).result["accuracy"]
    _, result, _ = found
    (same,) = result["accuracy"]
    assert judge["requested"] == same["requested"] and judge["not_known"] == 0
    assert judge["confusion"] == same["confusion"]
    assert list(judge["real"]["per_class"]) == ["happy"] and judge["real"]["images"] == 3


def test_a_judge_is_what_its_description_says(place, shipped, tmp_path) -> None:
    """A second softmax would hide that its answers are those of an annotator."""
    probabilities = network(tmp_path / "soft.onnx", 16, 8)
    made = onnx.load(probabilities)
    made.graph.node[1].output[0] = "logits"
    made.graph.node.append(onnx.helper.make_node("Softmax", ["logits"], ["scores"], axis=-1))
    probabilities.write_bytes(made.SerializeToString())
    for file, text, words in (
        (probabilities, "16,rgb", "giving logits, but its scores add up to 1"),
        (place / "judge.onnx", "16,rgb,probabilities", "but its scores do not add up to 1; write"),
    ):
        with pytest.raises(UserError, match=words):
            judges = [(file, "affectnet-8", text)]
            api.evaluate(place / "run", bundle=shipped, judges=judges, threads=1)


def test_another_file_is_not_lost(place, shipped, tmp_path) -> None:
    for name in ("labels.json", "labels.csv"):
        (tmp_path / name).write_text("index,file_name,label\n0,a.png,happy\n")
        with pytest.raises(UserError, match=f"{name} exists and is no evaluation"):
            api.evaluate(place / "run", bundle=shipped, threads=1, out=tmp_path / "labels.json")
        (tmp_path / name).unlink()


def test_judges_with_one_file_name_have_names_of_their_own(place, shipped, tmp_path) -> None:
    (tmp_path / "other").mkdir()
    network(tmp_path / "other" / "judge.onnx", 16, 7)
    files = (place / "judge.onnx", "affectnet-8"), (tmp_path / "other/judge.onnx", "affectnet-7")
    judges = [(file, scheme, "16,rgb") for file, scheme in files]
    out = tmp_path / "found.json"
    found = api.evaluate(place / "run", judges=judges, bundle=shipped, threads=1, out=out).result
    assert [one["judge"] for one in found["accuracy"]] == ["judge", "judge-2"]
    rows = list(csv.DictReader((tmp_path / "found.csv").open()))
    for one in found["accuracy"]:
        read = [(row["requested_label"], row[f"judge.{one['judge']}"]) for row in rows]
        known = [(asked, said) for asked, said in read if asked in one["confusion"][asked]]
        right = sum(asked == said for asked, said in known)
        assert one["requested"]["share"] == right / len(known)


def test_a_place_that_cannot_be_written_is_refused_before_the_work(place, monkeypatch) -> None:
    def refuse(*_: object, **named: object) -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS), "temporary")

    monkeypatch.setattr("synfer_rt.data.writers.atomic.tempfile.TemporaryFile", refuse)
    done: list[object] = []
    with pytest.raises(UserError, match=r"Cannot write .*evaluation.json \(Read-only.*choose ano"):
        api.evaluate(place / "run", on_progress=done.append)
    assert not done


def test_the_run_and_the_real_images_may_be_the_folder_where_one_is(
    place, shipped, tmp_path, monkeypatch
) -> None:
    out = tmp_path / "found.json"
    monkeypatch.chdir(place / "run")
    result = api.evaluate(".", bundle=shipped, threads=1, out=out).result
    assert result["run"]["name"] == "run"
    monkeypatch.chdir(place / "real")
    result = api.evaluate(place / "run", real=".", bundle=shipped, threads=1, out=out).result
    assert result["real"]["name"] == "real"
