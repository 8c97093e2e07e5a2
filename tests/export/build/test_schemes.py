"""Heads, mappings and valence, from a classifier's file to a bundle's votes and back."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("diffusers", reason="the build side needs synfer-rt[export]")

from synfer_rt.backends.loaded_engines import LoadedEngines
from synfer_rt.export.build.unpack import unpack
from synfer_rt.export.build.whole_bundle import Source, build_bundle
from synfer_rt.export.checkpoint.reading import read_checkpoint
from synfer_rt.export.networks.classifier import parse_classifier
from synfer_rt.judging.annotators import Annotators
from tests.export.networks.test_heads import two_heads
from tests.export.networks.test_third_party_classifiers import FIRST, SIZE, save_linear

pytestmark = pytest.mark.slow


def test_heads_mappings_and_dimensions_come_through(sd: Path, tmp_path: Path) -> None:
    mtl = save_linear(tmp_path / "mtl.onnx", 10)
    affect = parse_classifier(mtl, f"{FIRST},valence,arousal", f"{SIZE},rgb")
    heads = two_heads(tmp_path / "two.onnx")
    said: list[str] = []
    source = Source(sd, None, (heads, affect))
    bundle = build_bundle(source, tmp_path / "bundle", remark=said.append)
    assert any("The classes lost of classifier.two.features" in remark for remark in said)
    names = ["classifier.two.logits", "classifier.two.features", "classifier.mtl"]
    found = {head.annotator: head for _, head in bundle.heads}
    assert list(found)[:3] == names
    assert found["classifier.two.features"].mapping["bored"] == {"neutral": 1.0}
    annotators = Annotators(LoadedEngines(bundle, "onnxruntime-cpu", threads=1))
    images = np.random.default_rng(0).random((3, 3, *bundle.image_size), np.float32)
    seen = annotators.see(images)
    assert seen.dimensions.keys() == {"valence", "arousal"}
    assert len(annotators.judge(images, ["happy"] * 3)) == 3
    unpack(bundle, tmp_path / "out")
    read = {source.name: source for source in read_checkpoint(tmp_path / "out").classifiers}
    for wanted in (heads, affect):
        again = read[wanted.name]
        for one, other in zip(again.heads, wanted.heads, strict=True):
            assert replace(one, path=other.path) == other
