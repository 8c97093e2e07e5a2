"""diffusers, as a peer, makes the very images that the bundle built from its weights makes."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch", reason="the peers need PyTorch (synfer-rt[export])")

import torch

from synfer_rt.bench import peers
from synfer_rt.bench.peers import PEERS, Diffusers, check_weights, load
from synfer_rt.bench.runtime import Runtime
from synfer_rt.bench.systems import EVENTS, MODEL_STAGES, Setup, Stopwatch
from synfer_rt.bundle import Bundle
from synfer_rt.errors import UserError
from synfer_rt.export.build.one_engine import Source
from synfer_rt.export.build.whole_bundle import build_bundle


def setup(bundle: Bundle, checkpoint: Path, solver: str = "ddim") -> Setup:
    return Setup(bundle.path, solver, 6, "onnxruntime-cpu", 1, checkpoint)


def images(system: Any, out: Path) -> np.ndarray:
    out.mkdir()
    system.run(3, 1, 6, Stopwatch(), out)
    return system.images(out).astype(int)


@pytest.mark.parametrize("solver", peers.SCHEDULERS)
def test_the_images_are_the_same(
    solver: str,
    mini_bundle: Bundle,
    mini_checkpoint: Path,
    tmp_path: Path,
):
    given = setup(mini_bundle, mini_checkpoint, solver)
    ours, theirs = (
        images(Runtime(given), tmp_path / "a"),
        images(load("diffusers", given), tmp_path / "b"),
    )
    assert ours.shape == theirs.shape
    assert np.abs(ours[0] - ours[1]).max() > 20
    assert np.abs(ours - theirs).max() <= 1


def test_leading_timesteps_begin_where_the_pipelines_do(
    mini_bundle: Bundle, mini_checkpoint: Path, tmp_path: Path
) -> None:
    sd = Path(shutil.copytree(mini_checkpoint, tmp_path / "sd"))
    file = sd / "scheduler" / "scheduler_config.json"
    leading = {"timestep_spacing": "leading", "steps_offset": 0}
    file.write_text(json.dumps(json.loads(file.read_text()) | leading))
    out = Path(shutil.copytree(mini_bundle.path, tmp_path / "bundle"))
    bundle = build_bundle(Source(sd), out)  # with the same engines
    assert bundle.schedule.timestep_spacing == "leading" != mini_bundle.schedule.timestep_spacing
    given = setup(bundle, sd)
    ours, theirs = (
        images(Runtime(given), tmp_path / "a"),
        images(load("diffusers", given), tmp_path / "b"),
    )
    assert np.abs(ours - theirs).max() <= 1


def test_the_peer_tells_the_stages_that_are_compared(
    mini_bundle: Bundle,
    mini_checkpoint: Path,
    tmp_path: Path,
):
    watch = Stopwatch()
    load("diffusers", setup(mini_bundle, mini_checkpoint)).run(2, 2, 2, watch, tmp_path)
    assert set(watch.stages) == {*MODEL_STAGES, "write"}
    assert min(watch.stages.values()) > 0
    assert watch.clock is None


def test_the_peer_writes_every_image_of_every_batch(
    mini_bundle: Bundle, mini_checkpoint: Path, tmp_path: Path
):
    given = setup(mini_bundle, mini_checkpoint)
    system = load("diffusers", given)
    assert system.ran["precision"] == "float32" and system.ran["device"] == "cpu"
    system.run(2, 2, 2, Stopwatch(), tmp_path)
    files = sorted(tmp_path.iterdir())
    assert [file.name for file in files] == [f"{i:08d}.png" for i in range(4)]
    theirs = system.images(tmp_path).astype(int)
    Runtime(given).run(4, 1, 2, Stopwatch(), tmp_path / "ours")
    assert np.abs(Runtime(given).images(tmp_path / "ours") - theirs).max() <= 1


@pytest.mark.parametrize("name", ["diffusers-bf16", "diffusers-fp16-compiled"])
def test_half_precision_makes_nearly_the_same_images(
    name: str, mini_bundle: Bundle, mini_checkpoint: Path, tmp_path: Path
):
    given = setup(mini_bundle, mini_checkpoint)
    # What torch.compile wraps runs as it is: compiling takes a minute.
    with torch.compiler.set_stance("force_eager"):
        system: Any = load(name, given)
        half = images(system, tmp_path / "half")
    dtype = {"bf16": "bfloat16", "fp16": "float16"}[name.split("-")[1]]
    assert system.ran["precision"] == dtype
    wrapped = isinstance(system._unet, torch._dynamo.OptimizedModule)
    assert wrapped == PEERS[name].compiled
    difference = np.abs(half - images(load("diffusers", given), tmp_path / "whole"))
    assert 0 < difference.mean() < 4


def test_a_peer_that_cannot_reach_the_gpu_is_refused(mini_bundle: Bundle, mini_checkpoint: Path):
    given = setup(mini_bundle, mini_checkpoint)
    with pytest.raises(UserError, match=r"does not reach the GPU.* build of PyTorch for CUDA"):
        load("diffusers-fp16", dataclasses.replace(given, backend="onnxruntime-cuda"))


class Event:
    """A CUDA event; from one to the next are 3 milliseconds."""

    def __init__(self, enable_timing: bool) -> None:
        assert enable_timing

    def record(self) -> None:
        self.recorded = True

    def synchronize(self) -> None:
        self.waited = self.recorded

    def elapsed_time(self, end: Event) -> float:
        assert self.recorded and end.waited
        return 3.0


def test_on_a_gpu_stages_end_by_events(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(torch.cuda, "Event", Event)
    system: Any = object.__new__(Diffusers)
    system._torch, system._to = torch, {"device": "cuda"}
    watch = Stopwatch()
    for stage in ("denoise", "decode"):
        with system._stage(stage, watch):
            pass
    assert set(watch.stages) == {"denoise", "decode"}
    assert (watch.device, watch.clock) == (pytest.approx(0.006), EVENTS)


def test_a_gpu_means_half_precision_unless_said_otherwise(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    gpu = Setup(Path("."), "ddim", 1, "onnxruntime-cuda", 1, None)
    cpu = dataclasses.replace(gpu, backend="openvino-cpu")
    assert peers._where(torch, gpu, PEERS["diffusers"]) == {"device": "cuda", "dtype": torch.half}
    assert peers._where(torch, cpu, PEERS["diffusers"]) == {"device": "cpu", "dtype": torch.float32}
    bf16 = peers._where(torch, gpu, PEERS["diffusers-bf16"])
    assert bf16 == {"device": "cuda", "dtype": torch.bfloat16}


def test_the_bundles_own_checkpoint_is_accepted(
    mini_bundle: Bundle,
    mini_checkpoint: Path,
):
    check_weights(mini_checkpoint, mini_bundle)


def test_other_weights_are_refused(
    mini_bundle: Bundle,
    mini_checkpoint: Path,
    tmp_path: Path,
):
    other = shutil.copytree(mini_checkpoint, tmp_path / "other")
    weights = other / "unet" / "diffusion_pytorch_model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    with pytest.raises(UserError, match=r"unet.* is not the file"):
        check_weights(other, mini_bundle)


def test_a_missing_adapter_is_refused(
    mini_bundle: Bundle,
    mini_checkpoint: Path,
    tmp_path: Path,
):
    other = shutil.copytree(mini_checkpoint, tmp_path / "other")
    (other / "au_adapter.safetensors").unlink()
    with pytest.raises(UserError, match=r"au_adapter\.safetensors is missing"):
        check_weights(other, mini_bundle)


def test_a_bundle_without_source_hashes_is_refused(
    mini_bundle: Bundle,
    mini_checkpoint: Path,
):
    unknown = dataclasses.replace(mini_bundle, manifest={**mini_bundle.manifest, "source": {}})
    with pytest.raises(UserError, match="does not say which weights"):
        check_weights(mini_checkpoint, unknown)
