"""Steps that reuse the deep features of an earlier step."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from synfer_rt.backends import to_numpy
from synfer_rt.bundle import Bundle
from synfer_rt.diffusion.feature_caching import with_cached_features
from synfer_rt.diffusion.solvers import Trajectory
from synfer_rt.sampling.guidance import SemanticGuidance
from synfer_rt.sampling.sampler import Sampler
from tests.branches import with_branches
from tests.caching import with_caching
from tests.samples import request

CPU, OPENVINO = "onnxruntime-cpu", "openvino-cpu"
CONDITIONAL = "denoiser.conditional"
STORING, REUSING = "denoiser.storing", "denoiser.reusing"


@pytest.fixture(scope="module")
def caching_bundle(guided_bundle: Bundle, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return with_caching(guided_bundle, tmp_path_factory.mktemp("caching") / "bundle")


def denoised(
    bundle: Bundle, way: Trajectory, scales: list[float], backend: str = CPU
) -> tuple[np.ndarray, list[str]]:
    """The clean latents of a request at each scale, and the engines that were loaded."""
    sampler = Sampler.of(bundle, backend, threads=1)
    requests = [request(i) for i in range(len(scales))]
    given, guidance = sampler.condition(requests), np.array(scales, np.float32)
    *_, end = sampler.denoise(sampler.start(requests, way), given, guidance, way)
    return to_numpy(end).copy(), list(sampler.engines._loaded)


def by_hand(bundle: Bundle, way: Trajectory, scales: list[float]) -> np.ndarray:
    """The denoiser called at the time of the last step that computed features."""
    sampler = Sampler.of(bundle, CPU, threads=1)
    requests = [request(i) for i in range(len(scales))]
    state = {name: to_numpy(value) for name, value in sampler.condition(requests).items()}
    state["latents"] = sampler.start(requests, way)
    state["history"] = np.zeros((len(scales), 3, *bundle.latent.shape), np.float32)
    for i, reused in enumerate(way.reused):
        if not reused:
            state["timestep"] = np.asarray(way.timesteps[i])
        state["coefficients"] = way.coefficients[i]
        state["guidance"] = np.array(scales if way.guided[i] else np.ones(len(scales)), "f4")
        made = sampler.engines["denoiser"].run(state)
        state["latents"], state["history"] = made["next_latents"], made["next_history"]
    return state["latents"]


@pytest.mark.parametrize("backend", [CPU, OPENVINO])
@pytest.mark.parametrize("every", [2, 3])
@pytest.mark.usefixtures("in_float32")
def test_steps_in_between_take_the_last_features(
    caching_bundle: Bundle, way: Trajectory, every: int, backend: str
) -> None:
    if backend == OPENVINO:
        pytest.importorskip("openvino")
    cached = with_cached_features(way, every)
    found, loaded = denoised(caching_bundle, cached, [2.0, 3.0], backend)
    assert loaded == ["conditioner", STORING, REUSING]
    wanted = by_hand(caching_bundle, cached, [2.0, 3.0])
    np.testing.assert_allclose(found, wanted, atol=1e-5 * np.abs(wanted).max())
    whole, loaded = denoised(caching_bundle, with_cached_features(way, 1), [2.0, 3.0], backend)
    assert loaded == ["conditioner", "denoiser"]
    assert np.abs(found - whole).max() > 1e-2


def test_an_image_does_not_depend_on_the_scales_beside_it(
    caching_bundle: Bundle, way: Trajectory
) -> None:
    cached = with_cached_features(way, 2)
    alone, _ = denoised(caching_bundle, cached, [1.0])
    beside, _ = denoised(caching_bundle, cached, [1.0, 4.0])
    np.testing.assert_allclose(alone, beside[:1], atol=1e-6)


def test_the_batch_changes_no_image(caching_bundle: Bundle, way: Trajectory) -> None:
    sampler, cached = Sampler.of(caching_bundle, CPU, threads=1), with_cached_features(way, 2)
    requests = [request(i, guidance=1.0 + i) for i in range(5)]
    whole = sampler.sample(requests, cached, 5)
    for batch in (1, 2):
        for one, other in zip(whole, sampler.sample(requests, cached, batch), strict=True):
            np.testing.assert_array_equal(one.image, other.image)


def test_a_step_without_guidance_neither_stores_nor_reuses(
    caching_bundle: Bundle, way: Trajectory, tmp_path: Path
) -> None:
    both = with_branches(caching_bundle, tmp_path / "both")
    part = replace(way, guided=np.array([False, True, True, False]))
    cached = with_cached_features(part, 2)
    assert cached.reused.tolist() == [False, False, True, False]
    wanted = by_hand(caching_bundle, cached, [2.0, 3.0])
    for bundle, alone in ((caching_bundle, "denoiser"), (both, CONDITIONAL)):
        found, loaded = denoised(bundle, cached, [2.0, 3.0])
        assert loaded == ["conditioner", alone, STORING, REUSING]
        np.testing.assert_allclose(found, wanted, atol=1e-5 * np.abs(wanted).max())


@pytest.mark.parametrize("form", ["latent", "text-latent"])
def test_semantic_guidance_acts_beside_cached_features(
    caching_bundle: Bundle, way: Trajectory, form: str
) -> None:
    """A moved text reaches the deep part in the next step that computes it."""
    sampler, cached = Sampler.of(caching_bundle, CPU, threads=1), with_cached_features(way, 2)
    requests, starts = [request(i) for i in range(3)], np.zeros((3, 4, 8, 8), np.float32)
    plain = sampler.denoised(requests, starts, cached)
    guided = sampler.denoised(requests, starts, cached, SemanticGuidance(form, 0.3, 0.2))
    assert np.isfinite(guided).all() and np.abs(guided - plain).max() > 1e-3
    late = SemanticGuidance(form, 0.3, 0.75)  # the last of four steps, which reuses
    moved = np.abs(sampler.denoised(requests, starts, cached, late) - plain).max()
    assert (moved > 1e-3) == (form == "latent")


@pytest.mark.parametrize("form", [None, "latent", "text-latent"])
def test_bound_engines_give_the_same(
    caching_bundle: Bundle,
    way: Trajectory,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    form: str | None,
) -> None:
    pytest.importorskip("onnx_ir", reason="CUDA engines are made by synfer-rt[export]")
    from synfer_rt.backends.cuda_engine import CudaEngine
    from tests.cuda_bundles import run_on_cpu, with_cuda_engines

    semantic = None if form is None else SemanticGuidance(form, 0.3, 0.2)
    requests, cached = [request(i) for i in range(4)], with_cached_features(way, 2)
    plain = Sampler.of(caching_bundle, CPU, threads=1)
    run_on_cpu(monkeypatch)
    bound = Sampler.of(with_cuda_engines(caching_bundle, tmp_path / "cuda"), CPU, threads=1)
    for trajectory in (cached, way, with_cached_features(way, 3)):
        wanted = plain.sample(requests, trajectory, 2, semantic)
        found = bound.sample(requests, trajectory, 2, semantic)
        for one, other in zip(found, wanted, strict=True):
            np.testing.assert_array_equal(one.image, other.image)
    assert isinstance(bound.engines[STORING], CudaEngine)
    assert isinstance(bound.engines[REUSING], CudaEngine)
