"""Engines of free height and width: at every size they sample what diffusers' pipeline samples."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("diffusers", reason="the build side needs synfer-rt[export]")

from synfer_rt.backends import to_numpy
from synfer_rt.bundle import Bundle
from synfer_rt.bundle.sizes import Sizes
from synfer_rt.diffusion.solvers import trajectory
from synfer_rt.export.build.entries import Built
from synfer_rt.export.build.one_engine import Source
from synfer_rt.export.build.whole_bundle import build_bundle
from synfer_rt.export.networks.classifier import ClassifierSource
from synfer_rt.sampling.sampler import Sampler
from tests.export.checkpoint.test_pipelines import STEPS, Model, by_diffusers, requests
from tests.export.decoupled import synfer
from tests.export.tiny_checkpoint import save_classifier

RANGE = (8, 32)
OTHERS = [(24, 16), (8, 32)]

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def classifier(tmp_path_factory: pytest.TempPathFactory) -> ClassifierSource:
    path = tmp_path_factory.mktemp("classifiers") / "small.onnx"
    save_classifier(path, channels=3, classes=8)
    return ClassifierSource(
        "small", path, 24, "rgb", (0.5,) * 3, (0.3,) * 3, label_scheme="affectnet-8"
    )


@pytest.fixture(scope="module")
def built(
    sd_checkpoint: Path,
    sd_bundle: Bundle,
    classifier: ClassifierSource,
    tmp_path_factory: pytest.TempPathFactory,
) -> tuple[Bundle, list[Built]]:
    """The static bundle built again with free sizes, and what was reported of its engines."""
    out = Path(shutil.copytree(sd_bundle.path, tmp_path_factory.mktemp("bundles") / "free"))
    source, reports = Source(sd_checkpoint, classifiers=(classifier,), sizes=RANGE), []
    return build_bundle(source, out, report=reports.append), reports


@pytest.fixture(scope="module")
def bundle(built: tuple[Bundle, list[Built]]) -> Bundle:
    return built[0]


def images(bundle: Bundle, backend: str = "onnxruntime-cpu") -> np.ndarray:
    """Two images, float32 [2, 3, H, W], of the requests that test_pipelines makes."""
    sampler, asked = Sampler.of(bundle, backend, threads=1), requests(bundle)
    way = trajectory("ddim", bundle.schedule, STEPS, prediction_type=bundle.prediction_type)
    guidance = np.array([request.guidance for request in asked], np.float32)
    latents: Any = sampler.start(asked, way)
    *_, last = sampler.denoise(latents, sampler.condition(asked), guidance, way)
    return sampler.decode(to_numpy(last))


def test_the_manifest_says_which_sizes(bundle: Bundle) -> None:
    assert bundle.sizes == Sizes(8, 32, 4) and bundle.image_size == (16, 16)
    shapes = {t.name: t.shape for t in bundle.engines["denoiser"].inputs}
    assert shapes["latents"] == ("B", 4, "h", "w") and shapes["text"] == ("B", 2, 20, 16)
    assert bundle.engines["decoder"].outputs[0].shape == ("B", 3, "H", "W")


def test_all_but_the_conditioner_are_built_anew(built: tuple[Bundle, list[Built]]) -> None:
    assert [engine.name for engine in built[1] if engine.reused] == ["conditioner"]


@pytest.mark.parametrize("size", OTHERS)
def test_another_size_is_that_of_diffusers_pipeline(
    bundle: Bundle, sd_checkpoint: Path, size: tuple[int, int]
) -> None:
    adapter = sd_checkpoint / "au_adapter.safetensors"
    model = Model(sd_checkpoint, apply=lambda unet: synfer(unet, adapter))
    other = bundle.resized(size)
    wanted = by_diffusers(model, other, "ddim")
    assert wanted.shape == (2, 3, *size) and wanted.std() > 0.02
    np.testing.assert_allclose(images(other), wanted, atol=1e-3)


def test_the_default_size_is_that_of_the_static_bundle(bundle: Bundle, sd_bundle: Bundle) -> None:
    np.testing.assert_allclose(images(bundle), images(sd_bundle), atol=1e-4)


def test_openvino_samples_every_size(bundle: Bundle) -> None:
    pytest.importorskip("openvino", reason="needs synfer-rt[openvino]")
    for size in OTHERS:
        other = bundle.resized(size)
        np.testing.assert_allclose(images(other, "openvino-cpu"), images(other), atol=2e-2)


def test_encoder_and_classifier_take_every_size(
    bundle: Bundle, sd_bundle: Bundle, classifier: ClassifierSource
) -> None:
    import torch

    from synfer_rt.export.networks.image_network import reference

    draws = np.random.default_rng(0)
    sampler = Sampler.of(bundle, "onnxruntime-cpu", threads=1)
    for size in ((16, 16), (24, 24), (12, 28)):
        given = draws.random((3, 3, *size), np.float32)
        wanted = reference(classifier, torch.from_numpy(given)).numpy()
        found = sampler.engines["classifier.small"].run({"images": given})["probabilities"]
        np.testing.assert_allclose(found, wanted, atol=1e-5)
        mean, logvar = sampler.encode(given)
        assert mean.shape == logvar.shape == (3, 4, size[0] // 2, size[1] // 2)
    given = draws.random((3, 3, 16, 16), np.float32)
    static = Sampler.of(sd_bundle, "onnxruntime-cpu", threads=1).encode(given)
    np.testing.assert_allclose(sampler.encode(given), static, atol=1e-4)
