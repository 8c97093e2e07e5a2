"""What watches a sampler from outside: it is told of each stage and each step."""

from __future__ import annotations

import time
from collections.abc import Generator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass

import numpy as np


class Observer:
    """Watches a sampler. This one ignores what it is told; a subclass overrides what it needs."""

    def stage(self, name: str) -> AbstractContextManager[None]:
        """A context for one run of the stage `name`: condition, denoise, decode or label.

        Each solver step is one run of denoise.
        """
        return nullcontext()

    def step(self, images: float) -> None:
        """A solver step was made, worth so many `images`: the batch over the number of steps."""

    def decoded(self, sound: np.ndarray) -> None:
        """Images came out of the decoder; `sound`, bool [B], says which are finite and not flat.

        Those that are not are then made again. What this raises ends the sampling.
        """


@dataclass
class StageTimes(Observer):
    """Where the seconds of a run go; the fields add up to the whole run.

    `denoise` includes the inversion of photos to start from. `prepare` and `write` are the times
    for which the engines waited for the next piece's requests, noise and tokens, and for encoding
    and writing, which go on beside them; `other` is everything else.
    """

    prepare: float = 0.0
    condition: float = 0.0
    denoise: float = 0.0
    decode: float = 0.0
    label: float = 0.0
    write: float = 0.0
    other: float = 0.0

    @contextmanager
    def stage(self, name: str) -> Generator[None]:
        """Add the time inside to the stage `name`."""
        started = time.perf_counter()
        try:
            yield
        finally:
            setattr(self, name, getattr(self, name) + time.perf_counter() - started)

    def end(self, seconds: float) -> None:
        """Set `other`, given the duration of the whole run in seconds."""
        self.other = 0.0
        self.other = seconds - sum(vars(self).values())
