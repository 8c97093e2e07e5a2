"""A model whose classes are others than the eight expressions, from its requests to its dataset."""

from __future__ import annotations

import shutil
from collections import Counter
from pathlib import Path

import pytest

import synfer_rt
from synfer_rt.api import Model
from synfer_rt.bundle import Bundle
from synfer_rt.data.datasets import read_dataset
from synfer_rt.data.writers import FORMATS, read
from tests.damaged_bundles import change
from tests.jobs.small_network import network

CLASSES = ("happy", "happily surprised", "joyful", "sad")


@pytest.fixture(scope="module")
def model(tiny_bundle: Bundle, tmp_path_factory: pytest.TempPathFactory) -> Model:
    path = tmp_path_factory.mktemp("bundle") / "own"
    shutil.copytree(tiny_bundle.path, path)
    change(path, lambda fields: fields.update(label_scheme='happy,Happily_Surprised,"joyful",sad'))
    return synfer_rt.load(path, backend="onnxruntime-cpu", threads=1)


@pytest.mark.parametrize("format", FORMATS)
def test_its_datasets_have_its_classes(model: Model, tmp_path: Path, format: str) -> None:
    assert model.bundle.classes == CLASSES
    model.write(tmp_path / "out", count=8, steps=1, format=format)
    records = [record for record, _ in read(tmp_path / "out")]
    assert [record["requested_label"] for record in records] == [*CLASSES, *CLASSES]
    for record in records:
        if record["requested_label"] in ("happily surprised", "joyful"):
            assert f"{record['requested_label']} face" in record["prompt"]
            assert not any(record["aus"].values())  # no prototype says what they are
        assert list(record["probabilities"]) == list(CLASSES)
    assert synfer_rt.verify(tmp_path / "out").faults == ()
    scheme = records[0]["label_scheme"]
    found = read_dataset(tmp_path / "out", label_scheme=scheme)
    assert {item.label for item in found.items} == {record["label"] for record in records}


def test_its_classes_can_be_asked_for(model: Model) -> None:
    samples = model.sample(labels=["Happily surprised", "joyful"], count=2, steps=1)
    assert [sample.request.label for sample in samples] == ["happily surprised", "joyful"]
    with pytest.raises(synfer_rt.UserError, match="Unknown label 'fear'; the nearest"):
        model.sample(labels=["fear"], count=1)


def test_its_runs_are_chosen_from_shown_and_measured(model: Model, tmp_path: Path) -> None:
    run, few = tmp_path / "run", tmp_path / "few"
    model.write(run, count=40, steps=1)
    features, judge = network(tmp_path / "net.onnx", 16, 6), network(tmp_path / "judge.onnx", 16, 4)
    made = synfer_rt.distill(run, count=10, out=few, every=True, features=(features, "16,rgb"))
    labels = [record["label"] for record, _ in read(few)]
    assert {name: one.chosen for name, one in made.classes.items()} == Counter(labels)
    assert set(labels) <= set(CLASSES) and not synfer_rt.verify(few).faults
    page = synfer_rt.write_report(run, few, page=tmp_path / "page.html")
    assert page.images == (40, 10)
    judges = [(judge, ["sad", '"joyful"', "happy", "happily surprised"], "16,rgb")]
    out = tmp_path / "found.json"
    found = synfer_rt.evaluate(
        run, real=few, judges=judges, features=(features, "16,rgb"), bundle=model.bundle, out=out
    ).result
    (accuracy,) = found["accuracy"]
    assert accuracy["not_known"] == 0 and accuracy["real"]["images"] == 10
    assert set(accuracy["requested"]["per_class"]) == set(CLASSES)
