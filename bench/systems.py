"""What a benchmark compares: systems that make the same images, and how their time is told.

runtime.py is synfer-rt itself as a system, peers.py has the others; measure.py runs them.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import numpy as np

from synfer_rt.bundle import Bundle
from synfer_rt.sampling.requests import Requests, make_requests

STAGES = ("condition", "denoise", "decode", "label", "write", "other")
"""`write` encodes and writes the images; `other` is the run's time outside all other stages."""

MODEL_STAGES = ("condition", "denoise", "decode")
"""The stages that every system has, and on which systems are compared."""

SHOWN = 8
"""How many images of a run are compared between systems."""


@dataclass(frozen=True)
class Setup:
    """What is the same in every case of a benchmark.

    `bundle` is the bundle's directory; `threads` the number of CPU threads of each engine or
    operator; `checkpoint` the diffusers directory that peers load, None without peers.
    """

    bundle: Path
    solver: str
    steps: int
    backend: str
    threads: int
    checkpoint: Path | None


@dataclass(frozen=True)
class Case:
    """One system at one batch size.

    "synfer-rt" runs on the setup's backend; the name of a backend is synfer-rt on that backend; any
    other name is a key of peers.PEERS.
    """

    system: str
    batch: int


@dataclass
class Stopwatch:
    """Seconds by stage and by engine, added up over one run."""

    stages: dict[str, float] = field(default_factory=lambda: defaultdict(float))
    engines: dict[str, float] = field(default_factory=lambda: defaultdict(float))

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Count the time inside as that of stage `name`."""
        with _timed(self.stages, name):
            yield

    @contextmanager
    def engine(self, name: str) -> Iterator[None]:
        """Count the time inside as that of calls to engine `name`."""
        with _timed(self.engines, name):
            yield


class System(Protocol):
    """A system that can be benchmarked; it is made from a Setup, and loads its networks then."""

    def run(self, batch: int, steps: int, watch: Stopwatch, out: Path) -> None:
        """Make the images of indices 0 to batch-1 from pure noise, telling `watch` its stages.

        Whatever the system writes goes below `out`, an empty directory.
        """
        ...

    def images(self, out: Path) -> np.ndarray:
        """The first images (SHOWN of them, or the batch) of the last run, uint8 [n, H, W, 3]."""
        ...


def requests_of(bundle: Bundle) -> Requests:
    """What every system makes: the bundle's own defaults, but from pure noise.

    From a layout a solver starts midway, which the schedulers of peers cannot do.
    """
    return make_requests(bundle, layout="none", seed=0)


@contextmanager
def _timed(seconds: dict[str, float], name: str) -> Iterator[None]:
    started = time.perf_counter()
    try:
        yield
    finally:
        seconds[name] += time.perf_counter() - started
