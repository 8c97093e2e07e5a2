"""synfer-rt itself as a benchmarked system: the pipeline of `synfer-rt sample`."""

from __future__ import annotations

import dataclasses
import io
from collections.abc import Mapping
from itertools import islice
from pathlib import Path

import numpy as np

from synfer_rt.backends import Engine, Value
from synfer_rt.backends.computation import computation
from synfer_rt.backends.loaded_engines import LoadedEngines
from synfer_rt.bench.systems import HOST_CLOCK, SHOWN, Setup, Stopwatch, requests_of
from synfer_rt.bundle import open_bundle
from synfer_rt.bundle.engine_specs import REQUIRED_ENGINES
from synfer_rt.data.writers import open_output, read
from synfer_rt.jobs.sample import execute
from synfer_rt.jobs.sample_run import Run


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
        self._engines.load((*REQUIRED_ENGINES, *self.bundle.annotators))
        computed = computation(self.bundle, setup.backend)
        self._on_gpu = setup.on_gpu
        self.ran: Mapping[str, str] = {
            "backend": computed.backend,
            "runtime": computed.runtime,
            "precision": computed.precision,
            "device": computed.device,
        }

    def run(self, batch: int, batches: int, steps: int, watch: Stopwatch, out: Path) -> None:
        """Write the images of indices 0 to batch * batches - 1 as an image folder."""
        count = batch * batches
        run = Run(self.bundle, self._requests, count, self._solver, steps, layout_strength=1.0)
        self._engines.watch = watch
        writer = open_output(out, run.settings("imagefolder"), resume=False)
        times = dataclasses.asdict(execute(run, self._engines, writer, batch).times)
        del times["other"]
        watch.stages.update(times)
        if self._on_gpu:
            watch.device, watch.clock = sum(watch.engines.values()), HOST_CLOCK

    def images(self, out: Path) -> np.ndarray:
        """The first images of the run in `out`, uint8 [n, H, W, 3]."""
        from PIL import Image

        pngs = [png for _, png in islice(read(out), SHOWN)]
        return np.stack([np.asarray(Image.open(io.BytesIO(png))) for png in pngs])


class _TimedEngines(LoadedEngines):
    """Counts the time inside engine calls on `watch`."""

    watch = Stopwatch()

    def __getitem__(self, name: str) -> Engine:
        return _TimedEngine(super().__getitem__(name), self.watch)


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
