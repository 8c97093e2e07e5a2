"""A sampler that tells where its time goes and how far it is."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np

from synfer_rt.backends import Value
from synfer_rt.backends.loaded_engines import LoadedEngines
from synfer_rt.diffusion.solvers import Trajectory
from synfer_rt.judging.voting import Verdict
from synfer_rt.sampling.guidance import Guide
from synfer_rt.sampling.requests import Request
from synfer_rt.sampling.sampler import Sampler


@dataclass
class StageTimes:
    """Where the seconds of a run go; the fields add up to the whole run.

    `write` is what sampling had to wait for encoding and writing, which go on beside it; `other`
    is everything outside the engines and that wait.
    """

    condition: float = 0.0
    denoise: float = 0.0
    decode: float = 0.0
    label: float = 0.0
    write: float = 0.0
    other: float = 0.0

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Count the time inside as that of stage `name`."""
        started = time.perf_counter()
        try:
            yield
        finally:
            setattr(self, name, getattr(self, name) + time.perf_counter() - started)

    def end(self, seconds: float) -> None:
        """The run took so long: what no stage took is `other`."""
        self.other = 0.0
        self.other = seconds - sum(vars(self).values())


class ObservedSampler(Sampler):
    """A sampler that tells where its time goes (`times`) and how far it is.

    `on_step` is called after each solver step with what it was worth in images: those that take
    the step, over the number of steps.
    """

    def __init__(self, engines: LoadedEngines) -> None:
        super().__init__(engines)
        self.times = StageTimes()
        self.on_step: Callable[[float], None] = lambda images: None

    def condition(self, requests: Sequence[Request]) -> dict[str, Value]:
        """See Sampler."""
        with self.times.stage("condition"):
            return super().condition(requests)

    def denoise(
        self,
        latents: Value,
        conditioning: Mapping[str, Value],
        guidance: np.ndarray,
        trajectory: Trajectory,
        guide: Guide | None = None,
    ) -> Iterator[Value]:
        """See Sampler."""
        steps = super().denoise(latents, conditioning, guidance, trajectory, guide)
        for _ in trajectory.timesteps:
            with self.times.stage("denoise"):
                latents = next(steps)
            self.on_step(len(guidance) / len(trajectory.timesteps))
            yield latents

    def decode(self, latents: np.ndarray) -> np.ndarray:
        """See Sampler."""
        with self.times.stage("decode"):
            return super().decode(latents)

    def judge(
        self, images: np.ndarray, wanted: Sequence[str], latents: np.ndarray | None = None
    ) -> list[Verdict]:
        """See Sampler."""
        with self.times.stage("label"):
            return super().judge(images, wanted, latents)
