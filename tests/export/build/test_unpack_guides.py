"""A bundle keeps the network that guides, and gives it back."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

pytest.importorskip("diffusers", reason="the build side needs synfer-rt[export]")

import onnx
import torch
from safetensors.torch import load_file

from synfer_rt.bundle import Bundle
from synfer_rt.bundle.identity import GUIDE
from synfer_rt.errors import UserError
from synfer_rt.export.build.unpack import unpack
from synfer_rt.export.build.whole_bundle import Source, build_bundle
from synfer_rt.export.checkpoint.index import write_index
from synfer_rt.export.checkpoint.reading import read_checkpoint
from synfer_rt.export.graphs.engine_graphs import engine_names
from synfer_rt.export.networks.classifier import parse_classifier
from synfer_rt.export.networks.guiding_classifier import ExpressionNet, NetConfig
from tests.export.build.rewritten import with_new_hashes
from tests.export.same_engines import initializers, same_outputs
from tests.export.tiny_checkpoint import save_classifier


def with_guide(directory: Path, checkpoint: Path, file: Path, spec: str) -> tuple[Bundle, Source]:
    """The bundle in `directory` as one that keeps the ONNX file of its guide."""
    source = Source(checkpoint, guide=parse_classifier(file, "raf-db", spec))
    engines = json.loads((directory / "bundle.json").read_text())["engines"]
    write_index(source.read(), directory, {name: e["file"] for name, e in engines.items()})
    return with_new_hashes(directory), source


@pytest.mark.parametrize("beside", [False, True])
def test_an_onnx_file_that_guides_is_kept_and_read_again(
    beside: bool, mini_bundle: Bundle, mini_checkpoint: Path, copy: Path, tmp_path: Path
) -> None:
    file, spec = tmp_path / "fer.onnx", "24,grey,mean=0.4,std=0.2,output=logits"
    save_classifier(file, channels=1, classes=7)
    if beside:
        model = onnx.load(file)
        onnx.save(model, file, save_as_external_data=True, location="d.data", size_threshold=0)
    bundle, source = with_guide(copy, mini_checkpoint, file, spec)
    assert bundle.bundle_hash == mini_bundle.bundle_hash  # no sample depends on it
    unpack(bundle, tmp_path / "out")
    kept, read = tmp_path / "out" / GUIDE, read_checkpoint(tmp_path / "out")
    assert (kept.read_bytes() == file.read_bytes()) is not beside
    assert same_outputs(file, kept)
    assert read.guide is not None and read.weight_files[-1] == kept
    assert replace(read.guide, name="fer", path=file) == source.guide
    assert engine_names(read) == engine_names(source.read())
    assert Source(tmp_path / "out", sizes=(16, 64)).read().guide is None
    again = parse_classifier(file, "raf-db", "24,grey")
    other = Source(tmp_path / "out", guide=again).read()
    assert other.guide == again and kept not in other.weight_files


def test_a_folder_that_guides_is_kept_and_read_again(
    copy: Path, mini_checkpoint: Path, tmp_path: Path
) -> None:
    config = NetConfig(3, 16, 4, (8, 8), "raf-db")
    ExpressionNet(config).save(tmp_path / "mine")
    checkpoint = Source(mini_checkpoint, guide=tmp_path / "mine").read()
    engines = json.loads((copy / "bundle.json").read_text())["engines"]
    write_index(checkpoint, copy, {name: e["file"] for name, e in engines.items()})
    unpack(with_new_hashes(copy), tmp_path / "out")
    read = read_checkpoint(tmp_path / "out")
    assert read.additions == checkpoint.additions == ("image_classifier",)
    folder = tmp_path / "out" / "image_classifier"
    assert json.loads((folder / "config.json").read_text())["widths"] == [8, 8]
    before, after = (load_file(f / "model.safetensors") for f in (tmp_path / "mine", folder))
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_two_networks_that_guide_are_refused(sd: Path) -> None:
    save_classifier(sd / GUIDE, channels=1, classes=7)
    (sd / "image_classifier").mkdir()
    with pytest.raises(UserError, match=r"holds both image_classifier/ and image_clas.*remove"):
        read_checkpoint(sd)


@pytest.mark.slow
def test_a_guide_from_onnx_is_built_again_from_what_is_unpacked(
    mini_checkpoint: Path, tmp_path: Path
) -> None:
    save_classifier(tmp_path / "fer.onnx", channels=1, classes=7)
    guide = parse_classifier(tmp_path / "fer.onnx", "raf-db", "24,grey")
    bundle = build_bundle(Source(mini_checkpoint, guide=guide), tmp_path / "bundle")
    unpack(bundle, tmp_path / "out")
    again = build_bundle(Source(tmp_path / "out"), tmp_path / "again")
    assert bundle.engines.keys() == again.engines.keys() >= {"guide.text"}
    for name, spec in bundle.engines.items():
        before, after = bundle.path / spec.file, again.path / again.engines[name].file
        assert dict(initializers(before)) == dict(initializers(after)), name
        assert same_outputs(before, after), name
