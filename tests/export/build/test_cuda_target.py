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


@pytest.fixture
def fused(mini: tuple[Source, Path]) -> Bundle:
    return reused(*mini, CUDA)[0]


def remade(again: dict[str, bool]) -> list[str]:
    return [name for name, old in again.items() if not old]


def test_each_engine_gets_one_until_the_target_is_left_out(
    mini: tuple[Source, Path], mini_bundle: Bundle
) -> None:
    source, out = mini
    bundle, again = reused(source, out, CUDA)
    assert remade(again) == [f"{name} (cuda)" for name in mini_bundle.engines]
    assert bundle.cuda.keys() == mini_bundle.engines.keys() and bundle.path == out
    assert hashes(mini_bundle).items() < hashes(bundle).items()

    same, again = reused(source, out, CUDA)
    assert remade(again) == [] and hashes(same) == hashes(bundle)

    plain, again = reused(source, out)
    assert remade(again) == [] and plain.cuda == {}
    assert not list(out.glob("*.cuda.onnx"))
    assert plain.bundle_hash == bundle.bundle_hash


@pytest.mark.slow
def test_the_checkpoint_is_unpacked_as_without_them(
    mini: tuple[Source, Path], mini_bundle: Bundle, fused: Bundle
) -> None:
    _, out = mini
    unpack(fused, out.parent / "with")
    unpack(mini_bundle, out.parent / "without")
    files = [file for file in (out.parent / "with").rglob("*") if file.is_file()]
    assert any(file.suffix == ".safetensors" for file in files)
    for file in files:
        other = out.parent / "without" / file.relative_to(out.parent / "with")
        assert file.read_bytes() == other.read_bytes()


@pytest.mark.slow
def test_those_of_changed_weights_are_made_again(
    mini: tuple[Source, Path], mini_bundle: Bundle, fused: Bundle
) -> None:
    source, out = mini
    weights = source.directory / "vae" / "diffusion_pytorch_model.safetensors"
    save_file({name: tensor * 1.01 for name, tensor in load_file(weights).items()}, weights)
    changed, again = reused(source, out, CUDA)
    assert remade(again) == ["decoder", "encoder", "decoder (cuda)", "encoder (cuda)"]
    assert changed.cuda.keys() == mini_bundle.engines.keys()
    assert hashes(changed)["denoiser.cuda.onnx"] == hashes(fused)["denoiser.cuda.onnx"]
    assert hashes(changed)["decoder.cuda.onnx"] != hashes(fused)["decoder.cuda.onnx"]
    assert changed.bundle_hash != fused.bundle_hash
