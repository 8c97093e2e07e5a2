"""synfer-rt itself as a benchmarked system: the pipeline of `synfer-rt sample`."""

from __future__ import annotations

import dataclasses
import io
import logging
from collections.abc import Mapping
from itertools import islice
from pathlib import Path

import numpy as np

from synfer_rt.backends import Engine, Value
from synfer_rt.backends.computation import computation
from synfer_rt.backends.engine import BoundEngine, Buffer
from synfer_rt.backends.loaded_engines import LoadedEngines
from synfer_rt.backends.placement import described
from synfer_rt.bench.cuda_events import CudaEvents, cuda_events
from synfer_rt.bench.systems import EVENTS, HOST_CLOCK, SHOWN, Setup, Stopwatch, requests_of
from synfer_rt.bundle import open_bundle
from synfer_rt.data.writers import open_output, read
from synfer_rt.jobs.sample import execute
from synfer_rt.jobs.sample_run import Run
from synfer_rt.jobs.warnings import warn_of_the_cpu

LOG = logging.getLogger(__name__)
_ON_DEVICE = ("condition", "denoise", "decode", "label")
"""The stages that end when the device has done their work."""


class Runtime:
    """The bundle's engines, from requests to files on the disk. See `systems.System`.

    The writing of a run's last piece (on a GPU, of its last batch) overlaps with nothing, as in a
    long run.
    """

    def __init__(self, setup: Setup) -> None:
        self.bundle = open_bundle(setup.bundle)
        self._requests = requests_of(self.bundle)
        self._solver = setup.solver
        self._engines = _TimedEngines(self.bundle, setup.backend, setup.threads)
        self._engines.load(self._run_of(1, self.bundle.defaults.steps).engines)
        warn_of_the_cpu(self._engines)
        computed = computation(self.bundle, setup.backend)
        self._on_gpu = setup.on_gpu
        self.ran: Mapping[str, str] = {
            "backend": computed.backend,
            "runtime": computed.runtime,
            "precision": computed.precision,
            "device": computed.device,
            "placement": described(self._engines.placements().values()),
        }

    def run(self, batch: int, batches: int, steps: int, watch: Stopwatch, out: Path) -> None:
        """Write the images of indices 0 to batch * batches - 1 as an image folder."""
        count = batch * batches
        run = self._run_of(count, steps)
        self._engines.watch = watch
        self._engines.events = cuda_events() if self._on_gpu else CudaEvents(None)
        writer = open_output(out, run.settings("imagefolder"), resume=False)
        made = execute(run, self._engines, writer, batch)
        if made.retried:
            LOG.warning("Images came out broken and were made again on the CPU, which takes long.")
        times = dataclasses.asdict(made.times)
        del times["other"]
        watch.stages.update(times)
        by_events = self._engines.events.seconds()
        watch.engines.update(by_events or {})
        if self._on_gpu:
            waited = sum(watch.engines.values()) or sum(times[stage] for stage in _ON_DEVICE)
            watch.device, watch.clock = waited, HOST_CLOCK if by_events is None else EVENTS

    def _run_of(self, count: int, steps: int) -> Run:
        return Run(self.bundle, self._requests, count, self._solver, steps, layout_strength=1.0)

    def images(self, out: Path) -> np.ndarray:
        """The first images of the run in `out`, uint8 [n, H, W, 3]."""
        from PIL import Image

        pngs = [png for _, png in islice(read(out), SHOWN)]
        return np.stack([np.asarray(Image.open(io.BytesIO(png))) for png in pngs])


class _TimedEngines(LoadedEngines):
    """Counts the time inside engine calls on `watch`, that of bound engines by `events`."""

    watch = Stopwatch()
    events = CudaEvents(None)

    def __getitem__(self, name: str) -> Engine:
        engine = super().__getitem__(name)
        if isinstance(engine, BoundEngine):
            return _TimedBoundEngine(engine, self.watch, self.events)
        return _TimedEngine(engine, self.watch)


class _TimedEngine:
    def __init__(self, engine: Engine, watch: Stopwatch) -> None:
        self.spec, self.backend = engine.spec, engine.backend
        self._engine, self._watch = engine, watch

    def run(self, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        with self._watch.engine(self.spec.name):
            return self._engine.run(inputs)

    def run_on_device(self, inputs: Mapping[str, Value]) -> dict[str, Value]:
        with self._watch.engine(self.spec.name):
            return self._engine.run_on_device(inputs)


class _TimedBoundEngine(_TimedEngine):
    """A call that is enqueued returns before it is done, so only events can time it."""

    def __init__(self, engine: BoundEngine, watch: Stopwatch, events: CudaEvents) -> None:
        super().__init__(engine, watch)
        self._bound, self._events = engine, events

    def allocate(self, shape: tuple[int, ...], dtype: str) -> Buffer:
        return self._bound.allocate(shape, dtype)

    def enqueue(
        self, inputs: Mapping[str, Buffer], outputs: Mapping[str, Buffer], *, wait: bool = False
    ) -> None:
        with self._events.around(self.spec.name):
            self._bound.enqueue(inputs, outputs, wait=wait)
