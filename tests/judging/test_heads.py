"""Annotators with several heads, with mapped classes, and with valence and arousal."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

import synfer_rt
from synfer_rt.backends.loaded_engines import LoadedEngines
from synfer_rt.bundle import Bundle, open_bundle, write_manifest
from synfer_rt.errors import UserError
from synfer_rt.judging.annotators import Annotators
from synfer_rt.sampling.sampler import Sampler
from tests import tiny_bundle as tiny
from tests.damaged_bundles import change
from tests.small_datasets import picture

NAME = "classifier.two"
_GRAPH = """
  two (float[B,3,32,32] images) => (float[B,4] first, float[B,3] second, float[B] valence) {
    small = AveragePool <kernel_shape = [8, 8], strides = [8, 8]> (images)
    features = Flatten (small)
    scores = Gemm (features, weight)
    first = Softmax (scores)
    others = Gather <axis = 1> (scores, columns)
    second = Softmax (others)
    one = Gather <axis = 1> (scores, last)
    valence = Tanh (one)
  }"""
_HEADS: dict[str, Any] = {
    "first": {"label_scheme": "happy,sad,fear,anger"},
    "second": {
        "label_scheme": "bored,happy,lost",
        "mapping": {"bored": {"neutral": 0.75, "sad": 0.25}},
    },
}


@pytest.fixture(scope="module")
def bundle(tiny_bundle: Bundle, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """The tiny bundle with a classifier of two heads, the second mapped, that reads valence."""
    path = tmp_path_factory.mktemp("bundle") / "heads"
    draw = np.random.default_rng(0)
    weights = {
        "weight": draw.standard_normal((48, 4)).astype("f4"),
        "columns": np.array([1, 2, 3]),
        "last": np.array(3),
    }
    shutil.copytree(tiny_bundle.path, path)
    entry = tiny._engine(path, NAME, _GRAPH, weights)

    def named(name: str) -> str:  # onnx's parser reads no names with dots
        return f"probabilities.{name}" if name in _HEADS else name

    model = onnx.load(path / entry["file"])
    for node in model.graph.node:
        node.output[:] = map(named, node.output)
    for value in (*model.graph.output, *entry["outputs"]):
        if isinstance(value, dict):
            value["name"] = named(value["name"])
        else:
            value.name = named(value.name)
    onnx.save(model, path / entry["file"])
    fields = {k: v for k, v in tiny_bundle.manifest.items() if k not in ("format", "files")}
    engines = {**fields["engines"], NAME: {**entry, "heads": _HEADS}}
    return write_manifest(path, {**fields, "engines": engines})


@pytest.fixture(scope="module")
def annotators(bundle: Bundle) -> Annotators:
    return Annotators(LoadedEngines(bundle, "onnxruntime-cpu", threads=1))


def test_an_engine_runs_once_for_all_its_heads(
    annotators: Annotators, monkeypatch: pytest.MonkeyPatch
) -> None:
    ran: list[str] = []
    run = LoadedEngines.run_in_pieces

    def noted(self: LoadedEngines, name: str, *given: Any) -> Any:
        ran.append(name)
        return run(self, name, *given)

    monkeypatch.setattr(LoadedEngines, "run_in_pieces", noted)
    images = np.random.default_rng(1).random((3, 3, 32, 32), np.float32)
    seen = annotators.see(images)
    assert ran == ["classifier.small", NAME]
    assert annotators.members == ("classifier.small", f"{NAME}.first", f"{NAME}.second")
    assert [opinion.annotator for opinion in seen.opinions] == list(annotators.members)
    assert seen.opinions[2].scheme == "bored,happy,lost"
    assert seen.dimensions.keys() == {"valence"} and seen.dimensions["valence"].shape == (3,)
    raw = annotators.engines.run_in_pieces(NAME, "images", images)
    np.testing.assert_allclose(seen.dimensions["valence"], raw["valence"], atol=1e-6)


def test_label_writes_each_head_and_valence(bundle: Bundle, tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(picture(90))
    (tmp_path / "b.png").write_bytes(b"torn")
    model = synfer_rt.load(bundle.path, backend="onnxruntime-cpu", threads=1)
    for suffix in ("jsonl", "csv"):
        good, torn = model.label(
            [tmp_path / "a.png", tmp_path / "b.png"], out=tmp_path / f"t.{suffix}"
        )
        assert good.votes.keys() == {"classifier.small", f"{NAME}.first", f"{NAME}.second"}
        assert good.votes[f"{NAME}.second"] in ("bored", "happy", "lost")
        assert -1 < good.valence < 1 and good.valence != 0 and torn.valence == 0
    line = json.loads((tmp_path / "t.jsonl").read_text().splitlines()[0])
    assert "arousal" not in line and list(line)[-1] == "valence"


def test_heads_vote_on_samples(bundle: Bundle) -> None:
    sampler = Sampler.of(bundle, "onnxruntime-cpu", threads=1)
    images = np.random.default_rng(2).random((4, 3, 32, 32), np.float32)
    (verdict, *_) = sampler.judge(images, ["happy"] * 4)
    assert sum(verdict.probabilities.values()) == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize(
    ("edit", "said"),
    [
        (lambda head: head.update(mapping={"bored": {"glad": 1.0}}), "classes that are not there"),
        (lambda head: head.update(mapping={"tired": {"sad": 1.0}}), "classes that are not there"),
        (lambda head: head.update(label_scheme="bored,lost,shy", mapping={}), "no classes in"),
        (lambda head: head.update(label_scheme="happy,sad"), "has no output probabilities.second"),
    ],
)
def test_heads_that_do_not_fit_are_refused(
    bundle: Bundle, tmp_path: Path, edit: Any, said: str
) -> None:

    shutil.copytree(bundle.path, tmp_path / "copy")
    change(tmp_path / "copy", lambda f: edit(f["engines"][NAME]["heads"]["second"]))
    with pytest.raises(UserError, match=said):
        open_bundle(tmp_path / "copy")
