"""What a benchmark compares: systems that make the same images, and how their time is told.

runtime.py is synfer-rt itself as a system, peers.py has diffusers, and worker.py the systems that
run in environments of their own; measure.py runs them.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import numpy as np

from synfer_rt.bench import machine
from synfer_rt.bundle import Bundle, open_bundle
from synfer_rt.sampling.observer import StageTimes
from synfer_rt.sampling.requests import Requests, make_requests

STAGES = tuple(stage.name for stage in fields(StageTimes))
"""The stages of a run; `other` is its time outside all other stages. Peers lack some."""

MODEL_STAGES = ("condition", "denoise", "decode")
"""The stages that every system has, and on which systems are compared."""

SHOWN = 8
"""How many images of a run are compared between systems."""

HOST_CLOCK, EVENTS = "host clock around calls that wait", "CUDA events"
"""How the time of a device is measured."""


@dataclass(frozen=True)
class Setup:
    """What is the same in every case of a benchmark.

    `bundle` is the bundle's directory; `threads` the number of CPU threads of each engine or
    operator; `checkpoint` the diffusers directory that peers load, None without peers. `size` is
    the height and width of the images in pixels, None for the bundle's own.
    """

    bundle: Path
    solver: str
    steps: int
    backend: str
    threads: int
    checkpoint: Path | None
    size: tuple[int, int] | None = None

    def open(self) -> Bundle:
        """The bundle, for images of `size`."""
        bundle = open_bundle(self.bundle)
        return bundle if self.size is None else bundle.resized(self.size)

    @property
    def on_gpu(self) -> bool:
        """Whether the backend computes on a GPU, as peers then do, too."""
        return not self.backend.endswith("-cpu")


@dataclass(frozen=True)
class Compared:
    """A system in an environment of its own, where it runs.

    `python` is its interpreter, `worker` the module of bench/workers that it runs, `versions` the
    packages whose versions it tells, and `converter` the interpreter of optimum-intel if that
    converts the checkpoint for it.
    """

    python: str
    worker: str
    versions: tuple[str, ...]
    converter: str | None = None


@dataclass(frozen=True)
class Case:
    """One system at one or more batch sizes, which follow each other in one process.

    "synfer-rt" runs on the setup's backend; the name of a backend is synfer-rt on that backend. A
    case with `settings` is synfer-rt with these settings of `sample` in place of the setup's, one
    with `compared` a system in an environment of its own; any other name is a key of peers.PEERS.
    """

    system: str
    batches: tuple[int, ...]
    settings: tuple[tuple[str, Any], ...] = ()
    compared: Compared | None = None

    @property
    def own(self) -> bool:
        """Whether this is synfer-rt on the setup's backend."""
        return self.system == "synfer-rt" or bool(self.settings)

    def __str__(self) -> str:
        return f"{self.system}, batch {', '.join(map(str, self.batches))}"


@dataclass
class Stopwatch:
    """Seconds by stage and by engine, added up over one run; `device` is the device's own time.

    `clock` says how that was measured; None if it was not. `total` are the seconds of the whole run
    where the system tells them itself. `rows` are the images that went through each engine.
    """

    stages: dict[str, float] = field(default_factory=lambda: defaultdict(float))
    engines: dict[str, float] = field(default_factory=lambda: defaultdict(float))
    device: float = 0.0
    clock: str | None = None
    total: float | None = None
    rows: dict[str, float] = field(default_factory=lambda: defaultdict(float))

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


class System:
    """A system that can be benchmarked; it is made from a Setup, and loads its networks then."""

    ran: Mapping[str, str]
    """What it runs on: at least `runtime` with its version, `precision` and `device`."""
    notes: Sequence[str] = ()
    """What a reader of its figures must know."""

    def run(self, batch: int, batches: int, steps: int, watch: Stopwatch, out: Path) -> None:
        """Write the images of indices 0 to batch * batches - 1, made from pure noise, below `out`.

        `batch` are made at once. `watch` is told the stages and the images through each engine.
        `out` is an empty directory.
        """
        raise NotImplementedError

    def images(self, out: Path) -> np.ndarray:
        """The first images (SHOWN at most) that were written below `out`, uint8 [n, H, W, 3].

        Those alone for which every system was asked alike; there may be none.
        """
        raise NotImplementedError

    def flops(self) -> Mapping[str, int] | None:
        """The operations of its engines for an image; None for those of the setup's bundle."""
        return None

    def peak_rss_bytes(self) -> int | None:
        """The most memory that it has had."""
        return machine.peak_rss_bytes()

    def close(self) -> None:
        """End what it started."""


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
