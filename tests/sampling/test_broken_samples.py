"""Images that overflow, are flat or hold a NaN are made again or marked, and spoil no others."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from synfer_rt.backends import open_engine, status
from synfer_rt.bundle import Bundle
from synfer_rt.diffusion.solvers import Trajectory
from synfer_rt.sampling.sampler import Sampler
from synfer_rt.sampling.samples import Sample
from tests import tiny_bundle as tiny
from tests.samples import difference, request

CPU = "onnxruntime-cpu"
OPENVINO = "openvino-cpu"
needs_openvino = pytest.mark.skipif(
    not status(OPENVINO).works, reason=f"{OPENVINO}: {status(OPENVINO).reason}"
)


@needs_openvino
def test_an_image_that_overflows_float16_is_made_again_in_float32(
    tmp_path: Path, tiny_bundle: Bundle, way: Trajectory, sixty_four: list[Sample]
) -> None:
    overflowing = tiny.build(tmp_path / "b", decoder_overflows=True)
    sampler = Sampler.of(tiny_bundle, OPENVINO, threads=1)
    sampler.engines._loaded["decoder"] = open_engine(overflowing, "decoder", CPU, 1)
    assert not np.isfinite(sampler.decode(np.ones((1, *tiny.LATENT), np.float32))).all()
    samples = sampler.sample([request(i) for i in range(3)], way, batch=3)
    for sample in samples:
        assert sample.backend == CPU
        assert difference(sample, sixty_four[sample.request.index]) <= 2
        assert not sample.broken


@pytest.mark.usefixtures("in_float32")
@pytest.mark.parametrize("backend", [CPU, pytest.param(OPENVINO, marks=needs_openvino)])
def test_a_sample_that_stays_broken_is_not_accepted_and_the_others_are_made(
    tiny_bundle: Bundle, way: Trajectory, sixty_four: list[Sample], backend: str
) -> None:
    sampler = Sampler.of(tiny_bundle, backend, threads=1)
    requests = [request(0), request(41)]
    starts = sampler.start(requests, way)
    starts[1] = np.nan
    sound, broken = sampler.sample(requests, way, 2, starts=starts)
    (again,) = sampler.sample([request(41, label=broken.best)], way, 1, starts=starts[1:])
    assert broken.broken and again.broken
    assert not again.accepted
    assert np.isfinite(list(broken.probabilities.values())).all()
    assert difference(sound, sixty_four[0]) <= 2
    assert not sound.broken


def test_what_failed_in_float32_on_the_cpu_is_not_tried_again_there(
    tiny_bundle: Bundle, way: Trajectory
) -> None:
    sampler = Sampler.of(tiny_bundle, CPU, threads=1)
    assert sampler.engines.fallback is None
    starts = np.full((1, *tiny_bundle.latent.shape), np.nan)
    (sample,) = sampler.sample([request(41)], way, 1, starts=starts)
    assert sample.broken


def flat(images: np.ndarray) -> np.ndarray:
    return np.full_like(images, 0.5)


def almost_flat(images: np.ndarray) -> np.ndarray:
    return 0.5 + 1e-4 * images


def with_nan(images: np.ndarray) -> np.ndarray:
    images = images.copy()
    images[0, 1, 2, 3] = np.nan
    return images


@needs_openvino
@pytest.mark.parametrize("damage", [flat, almost_flat, with_nan])
def test_a_flat_image_and_a_nan_are_noticed(
    tiny_bundle: Bundle, way: Trajectory, damage: Callable[[np.ndarray], np.ndarray]
) -> None:
    class Damaged(Sampler):
        def decode(self, latents: np.ndarray) -> np.ndarray:
            return damage(super().decode(latents))

    sampler = Damaged.of(tiny_bundle, OPENVINO, threads=1)
    (again,) = sampler.sample([request(0)], way, 1)
    assert (again.backend, again.broken) == (CPU, False)
    on_cpu = Damaged.of(tiny_bundle, CPU, threads=1)
    (sample,) = on_cpu.sample([request(0)], way, 1)
    assert sample.broken
