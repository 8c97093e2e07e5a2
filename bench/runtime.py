"""synfer-rt itself as a benchmarked system: the pipeline of `synfer-rt sample`."""

from __future__ import annotations

import dataclasses
import io
import logging
from collections.abc import Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from synfer_rt.backends import Engine, Value
from synfer_rt.backends.computation import computation
from synfer_rt.backends.engine import BoundEngine, Buffer
from synfer_rt.backends.loaded_engines import LoadedEngines
from synfer_rt.backends.placement import described
from synfer_rt.bench.cuda_events import CudaEvents, cuda_events
from synfer_rt.bench.systems import EVENTS, HOST_CLOCK, SHOWN, Setup, Stopwatch, System
from synfer_rt.bundle import Bundle
from synfer_rt.bundle.qualities import BEST
from synfer_rt.data.writers import open_output, read
from synfer_rt.jobs.sample import execute
from synfer_rt.jobs.sample_run import Run
from synfer_rt.jobs.sample_settings import make_run
from synfer_rt.jobs.warnings import warn_of_the_cpu
from synfer_rt.sampling.sampler import Sampler

LOG = logging.getLogger(__name__)
_ON_DEVICE = ("condition", "denoise", "decode", "label")
"""The stages that end when the device has done their work."""


class Runtime(System):
    """The bundle's engines, from requests to files on the disk. See `systems.System`.

    `settings` of `sample` replace the setup's (see run_of), and steps that they name or imply those
    that a run is asked for. Engines are loaded as `sample` loads them for batches of `batch`.

    The writing of a run's last piece (on a GPU, of its last batch) overlaps with nothing, as in a
    long run.
    """

    def __init__(
        self, setup: Setup, settings: Mapping[str, Any] | None = None, batch: int = 1
    ) -> None:
        self.bundle = setup.open()
        self._solver, self._settings = setup.solver, settings or {}
        self._engines = _TimedEngines(self.bundle, setup.backend, setup.threads)
        run = self._run(1, setup.steps)
        self._engines.load(run.engines, Sampler(self._engines).at_once(batch, run.semantic))
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
        run = self._run(batch * batches, steps)
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

    def _run(self, count: int, steps: int) -> Run:
        return run_of(self.bundle, count, self._solver, steps, self._settings)

    def images(self, out: Path) -> np.ndarray:
        """The first images of the run in `out`, uint8 [n, H, W, 3]."""
        from PIL import Image

        pngs = [png for _, png in islice(read(out), SHOWN)]
        return np.stack([np.asarray(Image.open(io.BytesIO(png))) for png in pngs])


def run_of(bundle: Bundle, count: int, solver: str, steps: int, settings: Mapping[str, Any]) -> Run:
    """The run of so many images that does what peers can do, but for these settings of `sample`.

    Peers take this solver and so many steps from pure noise: from a layout a solver starts midway,
    which their schedulers cannot do. `settings` that name a quality start from its defaults alone.
    """
    given = dict(settings)
    if "quality" not in given:
        given = {"solver": solver, "steps": steps, "layout": "none", "quality": BEST} | given
        if "timesteps" in settings and "steps" not in settings:
            del given["steps"]
    return make_run(bundle, count=count, **given)


class _TimedEngines(LoadedEngines):
    """Counts calls of engines and the time inside on `watch`, that of bound engines by `events`."""

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
            outputs = self._engine.run(inputs)
        return self._counted(outputs)

    def run_on_device(self, inputs: Mapping[str, Value]) -> dict[str, Value]:
        with self._watch.engine(self.spec.name):
            outputs = self._engine.run_on_device(inputs)
        return self._counted(outputs)

    def _counted(self, outputs: dict[str, Value]) -> dict[str, Value]:
        self._watch.rows[self.spec.name] += _rows(outputs)
        return outputs


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
        self._watch.rows[self.spec.name] += _rows(outputs)


def _rows(outputs: Mapping[str, Value]) -> int:
    """The images that a call computed: the size of its outputs' first axis."""
    shapes = (_shape(tensor) for tensor in outputs.values())
    return max((shape[0] for shape in shapes if len(shape)), default=0)


def _shape(tensor: Any) -> Sequence[int]:
    """ONNX Runtime's handles have a method where arrays and buffers have an attribute."""
    shape: Any = tensor.shape
    return shape if isinstance(shape, tuple) else shape()
