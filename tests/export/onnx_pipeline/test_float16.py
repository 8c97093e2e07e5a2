"""Pipelines whose weights are in float16, or in files beside the graphs, make the same images."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("diffusers", reason="the build side needs synfer-rt[export]")

from synfer_rt.bundle import Bundle, open_bundle
from synfer_rt.export import build_engines
from synfer_rt.export.checkpoint.reading import read_checkpoint
from synfer_rt.export.onnx_pipeline.layout import GRAPHS
from synfer_rt.export.onnx_pipeline.reading import write_checkpoint
from tests.conftest import Once
from tests.export.onnx_pipeline.pipeline import images
from tests.export.onnx_pipeline.test_weights import move_weights
from tests.export.onnx_pipeline.test_writing import GUIDANCE, PROMPTS, samples, written

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def half_pipeline(mini_checkpoint: Path, once: Once) -> Path:
    return once("pipelines/mini-half", lambda out: written(mini_checkpoint, out, "fp16"))


@pytest.fixture(scope="module")
def half_beside(half_pipeline: Path, once: Once) -> Path:
    """That pipeline with its weights in files beside the graphs."""

    def make(out: Path) -> None:
        shutil.copytree(half_pipeline, out)
        for name in GRAPHS:
            move_weights(out / name / "model.onnx")

    return once("pipelines/mini-half-beside", make)


def test_the_shipped_bundle_becomes_a_pipeline_of_its_images(tmp_path: Path) -> None:
    bundle = open_bundle()
    assert bundle.engines["denoiser"].precision == "fp16"
    written(bundle.path, tmp_path / "pipeline", "fp16")
    wanted, start, way = samples(bundle, "unipc")
    found = images(tmp_path / "pipeline", bundle, way, PROMPTS, start, GUIDANCE)
    assert np.abs(found.astype(int) - wanted).max() <= 1
    assert np.abs(found[0].astype(int) - found[1]).max() > 20


def test_a_bundle_of_weights_beside_the_graphs_makes_the_images_of_the_pipeline(
    half_beside: Path, mini_bundle: Bundle, tmp_path: Path
) -> None:
    again = build_engines(half_beside, tmp_path / "bundle", precision="fp16")
    assert {spec.precision for spec in again.engines.values()} == {"fp16"}
    wanted, start, way = samples(again, "ddim")
    found = images(half_beside, mini_bundle, way, PROMPTS, start, GUIDANCE)
    assert np.abs(found.astype(int) - wanted).max() <= 1
    exact, _, _ = samples(mini_bundle, "ddim")
    assert np.abs(exact.astype(int) - wanted).max() <= 3


def test_weights_beside_the_graphs_are_those_within(
    half_pipeline: Path, half_beside: Path, tmp_path: Path
) -> None:
    for name in GRAPHS:
        assert (half_beside / name / "model.onnx_data").stat().st_size > 1000
    write_checkpoint(half_pipeline, tmp_path / "1")
    write_checkpoint(half_beside, tmp_path / "2")
    one, other = read_checkpoint(tmp_path / "1"), read_checkpoint(tmp_path / "2")
    for part in ("unet", "vae", "text_encoder"):
        tensors = getattr(other, part).state_dict()
        for name, tensor in getattr(one, part).state_dict().items():
            np.testing.assert_array_equal(tensors[name], tensor, name)
