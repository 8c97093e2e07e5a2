"""An observer is told of each stage and step, and the images are the same without one."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import pytest

from synfer_rt.diffusion.solvers import Trajectory
from synfer_rt.sampling.observer import Observer, StageTimes
from synfer_rt.sampling.sampler import Sampler
from tests.samples import request


class Recorder(Observer):
    def __init__(self) -> None:
        self.told: list[str | float] = []

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        self.told.append(name)
        yield
        self.told.append(f"end of {name}")

    def step(self, images: float) -> None:
        self.told.append(images)

    def decoded(self, sound: np.ndarray) -> None:
        self.told += [f"{name} {bool(yes)}" for name, yes in zip("abc", sound, strict=True)]


def test_stages_and_steps_are_told_in_their_order(sampler: Sampler, way: Trajectory) -> None:
    requests, recorder = [request(i) for i in range(3)], Recorder()
    samples = Sampler(sampler.engines, recorder).sample(requests, way, 3)
    step = ["denoise", "end of denoise", 3 / len(way.timesteps)]
    decode = ["decode", "end of decode", "a True", "b True", "c True"]
    label = ["label", "end of label"]
    condition = ["condition", "end of condition"]
    assert recorder.told == [*condition, *step * len(way.timesteps), *decode, *label]
    for one, other in zip(samples, sampler.sample(requests, way, 3), strict=True):
        np.testing.assert_array_equal(one.image, other.image)


def test_a_stage_that_is_told_of_while_latents_are_used_is_over(
    sampler: Sampler, way: Trajectory
) -> None:
    requests, recorder = [request(0)], Recorder()
    observed = Sampler(sampler.engines, recorder)
    conditioning, latents = observed.condition(requests), observed.start(requests, way)
    for _ in observed.denoise(latents, conditioning, np.ones(1, "f4"), way):
        assert recorder.told[-1] == 1 / len(way.timesteps)


def test_times_of_stages_add_up_to_the_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter([0.0, 2.0, 5.0, 6.0, 7.0, 7.5])
    monkeypatch.setattr("synfer_rt.sampling.observer.time.perf_counter", lambda: next(clock))
    times = StageTimes()
    for name in ("denoise", "denoise", "write"):
        with times.stage(name):
            pass
    times.end(10.0)
    assert times == StageTimes(denoise=3.0, write=0.5, other=6.5)
