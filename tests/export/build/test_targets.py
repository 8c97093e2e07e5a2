"""int8 engines and plans within a bundle."""

from __future__ import annotations

import shutil
from pathlib import Path

import onnx
import pytest

pytest.importorskip("diffusers", reason="the build side needs synfer-rt[export]")
from safetensors.torch import load_file, save_file

from synfer_rt.bundle import Bundle
from synfer_rt.bundle.identity import CHECKPOINT_INDEX
from synfer_rt.errors import UserError
from synfer_rt.export.build.whole_bundle import Options, Source, build_bundle
from tests.export.build.reuse import hashes, reused
from tests.export.tiny_checkpoint import save_classifier


@pytest.mark.slow
def test_int8_is_for_denoiser_and_classifiers_and_as_incremental(
    mini_checkpoint: Path, half_bundle: Bundle, tmp_path: Path
) -> None:
    source = Source(Path(shutil.copytree(mini_checkpoint, tmp_path / "checkpoint")))
    shutil.copytree(half_bundle.path, tmp_path / "out")
    bundle, again = reused(source, tmp_path / "out", Options("int8"))
    assert {name for name, old in again.items() if old} == {"conditioner", "decoder", "encoder"}
    precisions = {name: engine.precision for name, engine in bundle.engines.items()}
    assert precisions == {
        "conditioner": "fp16",
        "denoiser": "int8",
        "denoiser.conditional": "int8",
        "decoder": "fp16",
        "encoder": "fp16",
        "classifier.small": "int8",
    }
    assert CHECKPOINT_INDEX not in bundle.manifest["files"]  # no engine holds those tensors
    graph = onnx.load(bundle.path / "denoiser.onnx").graph
    assert any(node.op_type == "DequantizeLinear" for node in graph.node)
    assert 1e-4 < bundle.engines["denoiser"].parity["max_relative_error"] < 0.2
    save_classifier(source.directory / "classifiers" / "small.onnx", 3, 8, opset=18)
    _, again = reused(source, tmp_path / "out", Options("int8"))
    assert {name for name, old in again.items() if not old} == {"classifier.small"}


@pytest.mark.slow
def test_int8_is_calibrated_on_the_engines_of_now_not_of_a_build_that_failed(
    mini_checkpoint: Path, tmp_path: Path
) -> None:
    source = Source(Path(shutil.copytree(mini_checkpoint, tmp_path / "checkpoint")))
    with pytest.raises(UserError, match="denoiser"):
        build_bundle(source, tmp_path / "out", Options("int8", tolerance=1e-9))
    weights = source.directory / "text_encoder" / "model.safetensors"
    save_file({name: 3 * tensor for name, tensor in load_file(weights).items()}, weights)
    found = [build_bundle(source, tmp_path / name, Options("int8")) for name in ("out", "anew")]
    assert hashes(found[0])["denoiser.onnx"] == hashes(found[1])["denoiser.onnx"]


@pytest.mark.slow
def test_plans_are_compiled_once_for_each_engine(mini: tuple[Source, Path]) -> None:
    pytest.importorskip("tensorrt_rtx", reason="the target needs tensorrt-rtx")
    source, out = mini
    options = Options(targets=("tensorrt-rtx",), capabilities=("sm89",), batch=(1, 2, 4))
    bundle, _ = reused(source, out, options)
    plans = bundle.manifest["plans"]["tensorrt-rtx"]
    assert set(plans) == set(bundle.engines)
    for name, plan in plans.items():
        engine = bundle.manifest["engines"][name]["file"]
        assert plan["source_sha256"] == bundle.manifest["files"][engine]["sha256"]
        assert plan["file"] in bundle.manifest["files"]
        assert plan["compute_capabilities"] == ["sm89"]
    assert all(reused(source, out, options)[1].values())
    save_classifier(source.directory / "classifiers" / "small.onnx", 3, 8, opset=18)
    _, again = reused(source, out, options)
    new = {name for name, old in again.items() if not old}
    assert new == {"classifier.small", "classifier.small (tensorrt-rtx)"}
