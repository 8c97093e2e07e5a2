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

from synfer_rt.bench.peers import Diffusers, check_weights
from synfer_rt.bench.runtime import Runtime
from synfer_rt.bench.systems import MODEL_STAGES, Setup, Stopwatch
from synfer_rt.bundle import Bundle
from synfer_rt.diffusion.solvers import SOLVERS
from synfer_rt.errors import UserError
from synfer_rt.export.build.one_engine import Source
from synfer_rt.export.build.whole_bundle import build_bundle


def setup(bundle: Bundle, checkpoint: Path, solver: str = "ddim") -> Setup:
    return Setup(bundle.path, solver, 6, "onnxruntime-cpu", 1, checkpoint)


def images(system: Any, out: Path) -> np.ndarray:
    out.mkdir()
    system.run(3, 6, Stopwatch(), out)
    return system.images(out).astype(int)


@pytest.mark.parametrize("solver", SOLVERS)
def test_the_images_are_the_same(
    solver: str,
    mini_bundle: Bundle,
    mini_checkpoint: Path,
    tmp_path: Path,
):
    given = setup(mini_bundle, mini_checkpoint, solver)
    ours, theirs = images(Runtime(given), tmp_path / "a"), images(Diffusers(given), tmp_path / "b")
    assert ours.shape == theirs.shape
    assert np.abs(ours[0] - ours[1]).max() > 20
    assert np.abs(ours - theirs).max() <= 1


def test_leading_timesteps_begin_where_the_pipelines_do(
    mini_checkpoint: Path, tmp_path: Path
) -> None:
    sd = Path(shutil.copytree(mini_checkpoint, tmp_path / "sd"))
    file = sd / "scheduler" / "scheduler_config.json"
    leading = {"timestep_spacing": "leading", "steps_offset": 0}
    file.write_text(json.dumps(json.loads(file.read_text()) | leading))
    bundle = build_bundle(Source(sd), tmp_path / "bundle")
    given = setup(bundle, sd)
    ours, theirs = images(Runtime(given), tmp_path / "a"), images(Diffusers(given), tmp_path / "b")
    assert np.abs(ours - theirs).max() <= 1


def test_the_peer_tells_the_stages_that_are_compared(
    mini_bundle: Bundle,
    mini_checkpoint: Path,
    tmp_path: Path,
):
    watch = Stopwatch()
    Diffusers(setup(mini_bundle, mini_checkpoint)).run(2, 2, watch, tmp_path)
    assert set(watch.stages) == set(MODEL_STAGES)
    assert min(watch.stages.values()) > 0


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
