"""Fresh noise belongs to a sample and a step, whatever batch, piece or backend makes the sample."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from synfer_rt.backends import open_engine, status, to_numpy
from synfer_rt.bundle import Bundle
from synfer_rt.diffusion import noise
from synfer_rt.diffusion.solvers import Trajectory, trajectory
from synfer_rt.errors import UserError
from synfer_rt.sampling.guidance import SemanticGuidance
from synfer_rt.sampling.sampler import Sampler
from tests import tiny_bundle as tiny
from tests.samples import difference, request

CPU, OPENVINO = "onnxruntime-cpu", "openvino-cpu"
STOCHASTIC = ("euler-ancestral", "dpmpp-sde", "lcm", "tcd")
COUNT = 5


@pytest.fixture(params=STOCHASTIC)
def noisy(request: pytest.FixtureRequest, tiny_bundle: Bundle) -> Trajectory:
    return trajectory(request.param, tiny_bundle.schedule, 4, 0.9, tiny_bundle.prediction_type)


def steps_of(sampler: Sampler, way: Trajectory, rows: list[int]) -> Iterator[np.ndarray]:
    requests = [request(i) for i in rows]
    guidance = np.array([r.guidance for r in requests], np.float32)
    latents, conditioning = sampler.start(requests, way), sampler.condition(requests)
    keys = [(r.seed, r.index) for r in requests]
    for step in sampler.denoise(latents, conditioning, guidance, way, keys=keys):
        yield np.array(to_numpy(step))


def test_each_step_adds_the_noise_of_seed_index_and_step(
    sampler: Sampler, noisy: Trajectory
) -> None:
    plain = Trajectory(noisy.timesteps, noisy.coefficients, noisy.signal, noisy.noise)
    first, *_ = steps_of(sampler, noisy, [3, 9])
    bare, *_ = steps_of(sampler, plain, [3, 9])
    for row, index in enumerate((3, 9)):
        added = noisy.noises[0] * noise.normals([(11, index)], tiny.LATENT, "step", 0)[0]
        assert np.abs(added).max() > 0.1
        np.testing.assert_allclose(first[row], bare[row] + added, atol=1e-5)


def test_no_noise_is_left_after_the_last_step(noisy: Trajectory) -> None:
    assert noisy.noises[-1] == 0
    assert (noisy.noises[:-1] > 0).all()


def test_latents_do_not_depend_on_the_batch(sampler: Sampler, noisy: Trajectory) -> None:
    together = list(steps_of(sampler, noisy, list(range(COUNT))))
    for i in range(COUNT):
        for step, alone in enumerate(steps_of(sampler, noisy, [i])):
            np.testing.assert_allclose(alone[0], together[step][i], atol=1e-4)


def test_samples_do_not_depend_on_the_pieces(
    sampler: Sampler, noisy: Trajectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    requests = [request(i) for i in range(COUNT)]
    whole = sampler.sample(requests, noisy, COUNT)
    positions = 2 * tiny.LATENT[1] * tiny.LATENT[2]
    monkeypatch.setattr("synfer_rt.backends.loaded_engines._POSITIONS_PER_CALL", positions)
    pieces = Sampler.of(sampler.bundle, CPU, threads=1)
    assert pieces.at_once(COUNT) == 2  # the last piece is padded
    for one, other in zip(whole, pieces.sample(requests, noisy, COUNT), strict=True):
        assert difference(one, other) <= 1


def test_denoised_latents_do_not_depend_on_the_pieces(sampler: Sampler, noisy: Trajectory) -> None:
    requests = [request(i) for i in range(COUNT)]
    starts = sampler.start(requests, noisy)
    whole = sampler.denoised(requests, starts, noisy, size=COUNT)
    for size in (1, 2, 3):
        np.testing.assert_allclose(
            sampler.denoised(requests, starts, noisy, size=size), whole, atol=1e-4
        )


@pytest.mark.skipif(not status(OPENVINO).works, reason=f"{OPENVINO}: {status(OPENVINO).reason}")
def test_an_image_that_is_made_again_has_the_same_noise(
    tmp_path: Path, tiny_bundle: Bundle, sampler: Sampler, noisy: Trajectory
) -> None:
    overflowing = tiny.build(tmp_path / "b", decoder_overflows=True)
    other = Sampler.of(tiny_bundle, OPENVINO, threads=1)
    other.engines._loaded["decoder"] = open_engine(overflowing, "decoder", CPU, 1)
    requests = [request(i) for i in range(COUNT)]
    made = sampler.sample(requests, noisy, COUNT)
    for sample, again in zip(made, other.sample(requests, noisy, COUNT), strict=True):
        assert again.backend == CPU
        assert difference(sample, again) <= 1


@pytest.mark.parametrize("form", ["latent", "text-latent"])
def test_guided_samples_do_not_depend_on_the_batch(
    guided_bundle: Bundle, noisy: Trajectory, form: str
) -> None:
    sampler = Sampler.of(guided_bundle, CPU, threads=1)
    requests = [request(i) for i in range(3)]
    semantic = SemanticGuidance(form, 0.5, start=0.0)
    together = sampler.sample(requests, noisy, 3, semantic)
    apart = sampler.sample(requests, noisy, 1, semantic)
    assert all(difference(a, b) <= 2 for a, b in zip(together, apart, strict=True))
    plain = sampler.sample(requests, noisy, 3)
    assert any(difference(a, b) > 2 for a, b in zip(together, plain, strict=True))


def test_denoising_asks_for_the_keys_of_fresh_noise(sampler: Sampler, noisy: Trajectory) -> None:
    requests = [request(0), request(1)]
    latents, conditioning = sampler.start(requests, noisy), sampler.condition(requests)
    for keys in ([], [(11, 0)]):
        steps = sampler.denoise(latents, conditioning, np.ones(2, "f4"), noisy, keys=keys)
        with pytest.raises(UserError, match=rf"2 samples, but `keys` has {len(keys)}"):
            next(steps)
