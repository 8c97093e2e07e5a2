"""Steps without guidance: one branch gives what both give at guidance 1."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from synfer_rt.backends import to_numpy
from synfer_rt.bundle import Bundle
from synfer_rt.diffusion.solvers import Trajectory
from synfer_rt.sampling.guidance import SemanticGuidance
from synfer_rt.sampling.sampler import Sampler
from tests.samples import request

CPU, OPENVINO = "onnxruntime-cpu", "openvino-cpu"
CONDITIONAL, DISTILLED = "denoiser.conditional", "denoiser.distilled"


def latents(
    bundle: Bundle, way: Trajectory, scales: list[float], backend: str = CPU
) -> tuple[np.ndarray, list[str]]:
    """The clean latents of one request at each scale, and the engines that were loaded."""
    sampler = Sampler.of(bundle, backend, threads=1)
    requests = [request(i) for i in range(len(scales))]
    given, guidance = sampler.condition(requests), np.array(scales, np.float32)
    *_, end = sampler.denoise(sampler.start(requests, way), given, guidance, way)
    return to_numpy(end).copy(), list(sampler.engines._loaded)


@pytest.mark.parametrize("backend", [CPU, OPENVINO])
@pytest.mark.usefixtures("in_float32")
def test_guidance_1_needs_one_branch(
    guided_bundle: Bundle, branched_bundle: Bundle, way: Trajectory, backend: str
) -> None:
    if backend == OPENVINO:
        pytest.importorskip("openvino")
    both, loaded = latents(guided_bundle, way, [1.0] * 3, backend)
    assert loaded == ["conditioner", "denoiser"]
    one, loaded = latents(branched_bundle, way, [1.0] * 3, backend)
    assert loaded == ["conditioner", CONDITIONAL]
    np.testing.assert_allclose(one, both, atol=1e-5 * np.abs(both).max())


def test_a_scale_below_1_is_no_guidance_either(branched_bundle: Bundle, way: Trajectory) -> None:
    sampler = Sampler.of(branched_bundle, CPU, threads=1)
    low, one = (
        sampler.sample([request(0, guidance=scale)], way, 1)[0].image for scale in (0.0, 1.0)
    )
    assert "denoiser" not in sampler.engines._loaded
    np.testing.assert_array_equal(low, one)


@pytest.mark.parametrize("backend", [CPU, OPENVINO])
@pytest.mark.usefixtures("in_float32")
def test_guidance_acts_in_its_steps_alone(
    guided_bundle: Bundle, branched_bundle: Bundle, way: Trajectory, backend: str
) -> None:
    """The engine of a step does not matter, only its scale, and the history goes on."""
    if backend == OPENVINO:
        pytest.importorskip("openvino")
    part = replace(way, guided=np.array([False, True, True, False]))
    both, _ = latents(guided_bundle, part, [3.0] * 2, backend)
    one, loaded = latents(branched_bundle, part, [3.0] * 2, backend)
    assert loaded == ["conditioner", CONDITIONAL, "denoiser"]
    np.testing.assert_allclose(one, both, atol=1e-5 * np.abs(both).max())
    by_hand = guided_by_hand(guided_bundle, part, 3.0)
    np.testing.assert_allclose(both, by_hand, atol=1e-5 * np.abs(both).max())
    for other in ([1.0] * 2, [3.0] * 2):
        way_of = way if other[0] == 3.0 else part
        assert np.abs(latents(guided_bundle, way_of, other)[0] - both).max() > 1e-2


def guided_by_hand(bundle: Bundle, way: Trajectory, scale: float) -> np.ndarray:
    """The denoiser called step by step, with the scale of each."""
    sampler = Sampler.of(bundle, CPU, threads=1)
    requests = [request(0), request(1)]
    state = {name: to_numpy(value) for name, value in sampler.condition(requests).items()}
    state["latents"] = sampler.start(requests, way)
    state["history"] = np.zeros((2, 3, *bundle.latent.shape), np.float32)
    for i, guided in enumerate(way.guided):
        state |= {"timestep": np.asarray(way.timesteps[i]), "coefficients": way.coefficients[i]}
        state["guidance"] = np.full(2, scale if guided else 1.0, np.float32)
        made = sampler.engines["denoiser"].run(state)
        state["latents"], state["history"] = made["next_latents"], made["next_history"]
    return state["latents"]


def test_a_student_makes_every_step(branched_bundle: Bundle, way: Trajectory) -> None:
    student = replace(way, denoiser=DISTILLED)
    found, loaded = latents(branched_bundle, student, [2.5] * 2)
    assert loaded == ["conditioner", DISTILLED]
    again, _ = latents(branched_bundle, student, [1.0] * 2)
    np.testing.assert_array_equal(found, again)
    assert np.abs(found - latents(branched_bundle, way, [1.0] * 2)[0]).max() > 1e-2


@pytest.mark.parametrize("form", ["latent", "text-latent"])
def test_semantic_guidance_acts_beside_one_branch(
    guided_bundle: Bundle, branched_bundle: Bundle, way: Trajectory, form: str
) -> None:
    semantic = SemanticGuidance(form, 0.3, 0.2)
    requests = [request(i, guidance=1.0) for i in range(3)]
    both, one = (
        Sampler.of(bundle, CPU, threads=1).denoised(requests, starts(way), way, semantic)
        for bundle in (guided_bundle, branched_bundle)
    )
    np.testing.assert_allclose(one, both, atol=1e-4 * np.abs(both).max())


def starts(way: Trajectory) -> np.ndarray:
    return np.random.default_rng(4).standard_normal((3, 4, 8, 8), np.float32)
