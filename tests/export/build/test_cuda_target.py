"""A checkpoint built with the target `cuda`, and built again."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("diffusers", reason="the build side needs synfer-rt[export]")
from safetensors.torch import load_file, save_file

from synfer_rt.bundle import Bundle
from synfer_rt.export.build.unpack import unpack
from synfer_rt.export.build.whole_bundle import Options, Source
from tests.export.build.reuse import hashes, reused

CUDA = Options(targets=("cuda",))


def remade(again: dict[str, bool]) -> list[str]:
    return [name for name, old in again.items() if not old]


def test_each_engine_gets_a_cuda_engine(mini: tuple[Source, Path], mini_bundle: Bundle) -> None:
    source, out = mini
    plain, _ = reused(source, out)
    bundle, again = reused(source, out, CUDA)
    assert remade(again) == [f"{name} (cuda)" for name in mini_bundle.engines]
    assert bundle.cuda.keys() == mini_bundle.engines.keys() and bundle.path == out
    assert bundle.bundle_hash == plain.bundle_hash
    assert hashes(plain).items() < hashes(bundle).items()

    unpack(bundle, out.parent / "with")
    unpack(mini_bundle, out.parent / "without")
    files = [file for file in (out.parent / "with").rglob("*") if file.is_file()]
    assert any(file.suffix == ".safetensors" for file in files)
    for file in files:
        other = out.parent / "without" / file.relative_to(out.parent / "with")
        assert file.read_bytes() == other.read_bytes()

    same, again = reused(source, out, CUDA)
    assert remade(again) == [] and hashes(same) == hashes(bundle)

    weights = source.directory / "vae" / "diffusion_pytorch_model.safetensors"
    save_file({name: tensor * 1.01 for name, tensor in load_file(weights).items()}, weights)
    changed, again = reused(source, out, CUDA)
    assert remade(again) == ["decoder", "encoder", "decoder (cuda)", "encoder (cuda)"]
    assert changed.cuda.keys() == mini_bundle.engines.keys()
    assert hashes(changed)["denoiser.cuda.onnx"] == hashes(bundle)["denoiser.cuda.onnx"]
    assert hashes(changed)["decoder.cuda.onnx"] != hashes(bundle)["decoder.cuda.onnx"]

    plain, again = reused(source, out)
    assert remade(again) == [] and plain.cuda == {}
    assert not list(out.glob("*.cuda.onnx"))
    assert plain.bundle_hash == changed.bundle_hash != bundle.bundle_hash
