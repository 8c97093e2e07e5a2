"""What older releases wrote with FERAnno's former name is read, and is the same bundle."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from synfer_rt.backends.loaded_engines import LoadedEngines
from synfer_rt.bundle import FERANNO, MANIFEST, Bundle, open_bundle, write_manifest
from synfer_rt.bundle.manifest import read_manifest
from synfer_rt.errors import UserError
from synfer_rt.judging.annotators import Annotators
from tests import tiny_bundle as tiny
from tests.former_release import as_written_before

MANIFEST_OF_0_11 = Path(__file__).with_name("former") / MANIFEST
"""The manifest of synfer-mini 0.11.0 as it was written then, and what its runs call it."""
HASH_OF_0_11 = "c68b538b81482019160cb80ae29e021f9e336bb8ee5cc2f7ae420c50b8c8926d"
FORMER_HASH_OF_0_11 = "0c8ae000e73d2b79b8048576596c2c2e700f0ba7cd46f2e3547e2e29a5fad5b7"


@pytest.fixture
def former(voting_bundle: Bundle, tmp_path: Path) -> Bundle:
    return as_written_before(voting_bundle, tmp_path / "former")


def test_a_manifest_of_an_older_release_keeps_its_identity(tmp_path: Path):
    bundle = read_manifest(tmp_path, MANIFEST_OF_0_11.read_bytes())
    assert bundle.annotators == ("classifier.dense", "classifier.residual", "feranno")
    assert bundle.engines["feranno"].file == "annotator.onnx"
    assert bundle.bundle_hash == HASH_OF_0_11
    assert bundle.former_hash == FORMER_HASH_OF_0_11


def test_the_same_engine_under_its_new_name_is_the_same_bundle(tmp_path: Path):
    fields = json.loads(MANIFEST_OF_0_11.read_bytes())
    engines = {FERANNO if n == "annotator" else n: e for n, e in fields["engines"].items()}
    engines[FERANNO]["file"] = "feranno.onnx"
    fields["files"]["feranno.onnx"] = fields["files"].pop("annotator.onnx")
    bundle = read_manifest(tmp_path, json.dumps({**fields, "engines": engines}))
    assert bundle.bundle_hash == HASH_OF_0_11
    assert bundle.former_hash == FORMER_HASH_OF_0_11
    fields["files"]["feranno.onnx"]["sha256"] = "0" * 64
    other = read_manifest(tmp_path, json.dumps({**fields, "engines": engines}))
    assert other.bundle_hash != HASH_OF_0_11 and other.former_hash != FORMER_HASH_OF_0_11


def test_weights_beside_the_engine_are_the_same_by_either_name(former: Bundle, tmp_path: Path):
    (former.path / "annotator.onnx.data").write_bytes(b"weights")
    fields = {k: v for k, v in former.manifest.items() if k not in ("format", "files")}
    before = write_manifest(former.path, fields).bundle_hash
    assert before != former.bundle_hash
    for file in ("annotator.onnx", "annotator.onnx.data"):
        (former.path / file).rename(former.path / file.replace("annotator", "feranno"))
    fields["engines"]["feranno"]["file"] = "feranno.onnx"
    assert write_manifest(former.path, fields).bundle_hash == before


def test_a_former_bundle_votes_as_it_did(former: Bundle, voting_bundle: Bundle):
    assert former.bundle_hash == voting_bundle.bundle_hash
    assert (former.path / "annotator.onnx").exists()
    images = np.random.default_rng(0).random((2, 3, *tiny.IMAGE), np.float32)
    before, now = (
        Annotators(LoadedEngines(bundle, "onnxruntime-cpu", threads=1)).opinions(images)
        for bundle in (former, voting_bundle)
    )
    assert [opinion.annotator for opinion in before] == [opinion.annotator for opinion in now]
    for one, other in zip(before, now, strict=True):
        np.testing.assert_array_equal(one.probabilities, other.probabilities)


def test_a_former_bundles_plans_are_found(former: Bundle):
    tiny.add_plans(former)
    path = former.path / MANIFEST
    fields = json.loads(path.read_text())
    plans = fields["plans"]["tensorrt-rtx"]
    plans["annotator"] = plans.pop("feranno")
    fields["engines"]["annotator"] = fields["engines"].pop("feranno")
    path.write_text(json.dumps(fields))
    bundle = open_bundle(former.path)
    assert bundle.plans["tensorrt-rtx"]["feranno"].engine == "feranno"
    assert bundle.bundle_hash == former.bundle_hash


def test_a_former_bundles_cuda_engines_are_found(former: Bundle):
    tiny.add_cuda_engines(former)
    path = former.path / MANIFEST
    fields = json.loads(path.read_text())
    for section in ("engines", "cuda"):
        fields[section]["annotator"] = fields[section].pop("feranno")
    path.write_text(json.dumps(fields))
    bundle = open_bundle(former.path)
    assert bundle.cuda["feranno"].file == "annotator.cuda.onnx"
    assert bundle.bundle_hash == former.bundle_hash


def test_an_engine_has_one_name(former: Bundle):
    path = former.path / MANIFEST
    fields = json.loads(path.read_text())
    fields["engines"]["feranno"] = fields["engines"]["annotator"]
    path.write_text(json.dumps(fields))
    with pytest.raises(UserError, match="it has both annotator and feranno, which are one"):
        open_bundle(former.path)
