"""Which networks are refused as judges, since they had a part in the run."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import numpy_helper, parser

from synfer_rt import UserError
from synfer_rt.api import Model
from synfer_rt.bundle import Bundle
from synfer_rt.jobs.evaluation.independence import Parts, hashes_of, same_answers
from synfer_rt.jobs.evaluation.networks import SCORES, Judge, Opener, own_classifiers
from tests.jobs.small_network import network

OPENER = Opener("onnxruntime-cpu", 1)


@pytest.mark.parametrize("name", ["classifier.residual", "classifier.dense"])
def test_an_annotator_is_no_judge(shipped, tmp_path, name) -> None:
    """Not under another name, saved again, in other types or axes, nor within a larger file."""
    engine = onnx.load(shipped.path / f"{name}.onnx")
    for tensor in engine.graph.initializer:
        values = numpy_helper.to_array(tensor)
        if values.dtype == np.float16:
            tensor.CopyFrom(numpy_helper.from_array(values.astype("f4"), tensor.name))
    for node in engine.graph.node:  # which now cast nothing
        node.name = f"renamed_{node.name}"
    file = tmp_path / "mine.onnx"
    file.write_bytes(engine.SerializeToString())
    with pytest.raises(UserError, match=rf"% of its weights are those of {name}, which labelled"):
        refuse(file, shipped, "64,rgb,probabilities,output=probabilities")


def test_annotators_are_told_apart_but_not_from_rounded_ones(shipped, tmp_path) -> None:
    """The shipped classifiers learned from the same images; rounding changes every weight."""
    samples = Model(shipped, "onnxruntime-cpu", 1).sample(count=8, seed=3)
    pixels = np.stack([sample.image for sample in samples])
    images = pixels.transpose(0, 3, 1, 2).astype(np.float32) / 255
    own = own_classifiers(shipped, OPENER)
    dense, residual = own["classifier.dense"], own["classifier.residual"]
    assert not same_answers(dense, residual, images)
    engine = onnx.load(shipped.path / "classifier.residual.onnx")
    for tensor in engine.graph.initializer:
        values = numpy_helper.to_array(tensor)
        if values.dtype == np.float16:
            step = np.abs(values).max() / 127
            tensor.CopyFrom(numpy_helper.from_array(np.rint(values / step) * step, tensor.name))
    file = tmp_path / "mine.onnx"
    file.write_bytes(engine.SerializeToString())
    network = OPENER.described(file, "64,rgb,probabilities", "judges", SCORES)
    judge, parts = Judge(network, "affectnet-8"), Parts(shipped, {})
    assert parts.part_of(network) is None
    with pytest.raises(UserError, match=r"answers as classifier.residual does, which labelled"):
        parts.refuse_judge(judge, images, OPENER)


def refuse(file: Path, bundle: Bundle, text: str, **settings: Any) -> None:
    judge = OPENER.described(file, text, "judges", SCORES)
    Parts(bundle, settings).refuse(judge, "one of `judges`")


def test_a_guide_is_no_judge_of_what_it_guided(guided_bundle: Bundle, tmp_path) -> None:
    guide = onnx.load(guided_bundle.path / guided_bundle.engines["guide.latent"].file)
    (weight,) = (numpy_helper.to_array(t) for t in guide.graph.initializer)
    made = parser.parse_model(
        """<ir_version: 8, opset_import: ["" : 17]>
        net (float[B,1,16,16] images) => (float[B,8] scores) {
          flat = Flatten (images)
          scores = Gemm <transB = 1> (flat, weight)
        }"""
    )
    made.graph.initializer.append(numpy_helper.from_array(weight.T.copy(), "weight"))
    file = tmp_path / "mine.onnx"
    file.write_bytes(made.SerializeToString())
    refuse(file, guided_bundle, "16,grey")
    refuse(file, guided_bundle, "16,grey", semantic_guidance={"form": "text", "strength": 1})
    with pytest.raises(UserError, match=r"of guide.latent, which guided this run"):
        refuse(file, guided_bundle, "16,grey", semantic_guidance={"form": "latent"})


def test_a_file_that_the_bundle_was_built_from_is_no_judge(voting_bundle, tmp_path) -> None:
    file = network(tmp_path / "mine.onnx", 8, 8)
    known = {"classifiers/x.onnx": hashlib.sha256(file.read_bytes()).hexdigest()}
    source = {"name": "x", "sha256": known}
    built = replace(voting_bundle, manifest={**voting_bundle.manifest, "source": source})
    with pytest.raises(UserError, match=r"it is classifiers/x.onnx, from which .* was built"):
        refuse(file, built, "8,rgb")
    refuse(file, voting_bundle, "8,rgb")


def test_the_hashes_of_a_bundle_are_those_of_its_runs(student_bundle: Bundle) -> None:
    assert {student_bundle.bundle_hash, student_bundle.hash_with("denoiser.distilled")} <= (
        hashes_of(student_bundle)
    )
