"""How it is measured: fresh processes, interleaved, warm-up apart, every number kept.

A case is one system at one batch size. A visit to a case is a new process that loads the system,
warms it up and runs it; visits go round all cases, then round again, so that a slow phase of the
machine meets all of them. Being a process of its own, a visit also tells its true peak memory.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from synfer_rt.backends import BACKENDS
from synfer_rt.bench import machine
from synfer_rt.errors import UserError
from synfer_rt.fresh_processes import fresh_processes

STAGES = ("condition", "denoise", "decode", "label", "write", "other")
"""`write` encodes and writes the images; `other` is the run's time outside all other stages."""

MODEL_STAGES = ("condition", "denoise", "decode")
"""What every system does, and what a comparison is of."""

WARM_UP_STEPS = 2
_SHORTEST_VISIT = 1.0
"""Seconds: a visit repeats its run until it has measured for so long."""
SHOWN = 8
"""How many images of a run are compared between systems."""


@dataclass(frozen=True)
class Setup:
    """What is the same in every case of a benchmark.

    `threads` is the number of CPU threads of each engine or operator; `checkpoint` the diffusers
    directory that peers load, None when there are none.
    """

    engines: Path
    solver: str
    steps: int
    backend: str
    threads: int
    checkpoint: Path | None


@dataclass(frozen=True)
class Case:
    """One system at one batch size.

    "synfer-rt" runs on the setup's backend; a backend's name is synfer-rt on that one; any other
    is a name of peers.PEERS.
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
    """What can be benchmarked; made from a Setup, which loads it."""

    def run(self, batch: int, steps: int, watch: Stopwatch, out: Path) -> None:
        """Make the images of indices 0 to batch-1 from pure noise, telling `watch` its stages.

        Anything that the system writes goes below `out`, an empty directory.
        """
        ...

    def images(self, out: Path) -> np.ndarray:
        """The first images (SHOWN of them, or the batch) of the last run, uint8 [n, H, W, 3]."""
        ...


def interleaved(cases: Sequence[Case], repeats: int) -> list[tuple[int, Case]]:
    """The order of visits, (repeat, case): A B A B, never A A B B."""
    return [(repeat, case) for repeat in range(repeats) for case in cases]


def measure(
    setup: Setup,
    cases: Sequence[Case],
    repeats: int,
    progress: Callable[[int, int, Case], None],
) -> tuple[list[dict[str, Any]], dict[str, np.ndarray]]:
    """Visit every case `repeats` times; `progress(number, count, case)` is called before each.

    Returns the visits as JSON values in the order in which they were made, and each system's
    first images, uint8 [n, H, W, 3]. Raises UserError, also for a visit
    whose process died.
    """
    order = interleaved(cases, repeats)
    visits: list[dict[str, Any]] = []
    images: dict[str, np.ndarray] = {}
    for number, (repeat, case) in enumerate(order):
        progress(number, len(order), case)
        record, shown = _in_fresh_process(setup, case)
        visits.append({"order": number, "repeat": repeat, **record})
        if len(shown) >= len(images.get(case.system, ())):
            images[case.system] = shown
    return visits, images


def _in_fresh_process(setup: Setup, case: Case) -> tuple[dict[str, Any], np.ndarray]:
    try:
        with fresh_processes(1) as pool:
            return pool.submit(visit, setup, case).result()
    except BrokenProcessPool:
        raise UserError(
            f"The process of {case.system} at batch {case.batch} was killed, most likely for want "
            "of memory; leave that size out of --batch."
        ) from None


def visit(setup: Setup, case: Case) -> tuple[dict[str, Any], np.ndarray]:
    """Load, warm up and run one case in this process: its record and its first images.

    The warm-up is a whole run, but of at most WARM_UP_STEPS steps: it touches every shape, and
    the steps after it are all alike.
    """
    started = time.perf_counter()
    system = _load(setup, case.system)
    loaded = time.perf_counter()
    _run(system, case.batch, min(setup.steps, WARM_UP_STEPS))
    warm = time.perf_counter()
    runs = []
    images = np.zeros(0)
    while not runs or time.perf_counter() - warm < _SHORTEST_VISIT:
        run, images = _run(system, case.batch, setup.steps)
        runs.append(run)
    record = {
        "system": case.system,
        "batch": case.batch,
        "load_seconds": loaded - started,
        "warm_up_seconds": warm - loaded,
        "runs": runs,
        "peak_rss_bytes": machine.peak_rss_bytes(),
        "gpu_bytes": machine.gpu_bytes(),
    }
    return record, images


def _load(setup: Setup, system: str) -> System:
    if system == "synfer-rt" or system in BACKENDS:
        from synfer_rt.bench.runtime import Runtime

        return Runtime(setup if system == "synfer-rt" else replace(setup, backend=system))
    from synfer_rt.bench import peers

    return peers.PEERS[system](setup)


def _run(system: System, batch: int, steps: int) -> tuple[dict[str, Any], np.ndarray]:
    watch = Stopwatch()
    with tempfile.TemporaryDirectory(prefix="synfer-rt-bench-") as directory:
        out = Path(directory) / "out"  # a run has a folder beside it too
        out.mkdir()
        started = time.perf_counter()
        system.run(batch, steps, watch, out)
        total = time.perf_counter() - started
        images = system.images(out)
    stages = {name: watch.stages.get(name, 0.0) for name in STAGES}
    stages["other"] = total - sum(stages.values())
    return {"total": total, "stages": stages, "engines": dict(watch.engines)}, images


def summarise(visits: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """One entry a case, in order of first visit: median over its visits, extremes of its runs.

    A visit counts once, by the median of its runs: in a slow phase of the machine fewer of them
    fit into it. Times are seconds a batch; `images_per_second` is of whole runs,
    `model_images_per_second` of MODEL_STAGES alone; `engine_share` is the part of a run spent in
    engine calls, None for systems without engines; memory is the largest of any visit.
    """
    by_case: dict[tuple[str, int], list[Mapping[str, Any]]] = {}  # its visits
    for record in visits:
        by_case.setdefault((record["system"], record["batch"]), []).append(record)
    entries = []
    for (system, batch), records in by_case.items():
        visited = [record["runs"] for record in records]
        model = [[sum(r["stages"][s] for s in MODEL_STAGES) for r in runs] for runs in visited]
        engines = [[sum(r["engines"].values()) / r["total"] for r in runs] for runs in visited]
        entries.append(
            {
                "system": system,
                "batch": batch,
                "runs": sum(map(len, visited)),
                "seconds": _spread([r["total"] for r in runs] for runs in visited),
                "stages": {
                    stage: _spread([r["stages"][stage] for r in runs] for runs in visited)
                    for stage in STAGES
                },
                "images_per_second": _spread([batch / r["total"] for r in v] for v in visited),
                "model_images_per_second": _spread([batch / s for s in v] for v in model),
                "engine_share": _spread(engines) if visited[0][0]["engines"] else None,
                "load_seconds": _spread([record["load_seconds"]] for record in records),
                "warm_up_seconds": _spread([record["warm_up_seconds"]] for record in records),
                "peak_rss_bytes": _largest(records, "peak_rss_bytes"),
                "gpu_bytes": _largest(records, "gpu_bytes"),
            }
        )
    return entries


def speedups(summary: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """How many times faster synfer-rt is than each peer at each batch, on MODEL_STAGES."""
    medians = {
        (entry["system"], entry["batch"]): entry["model_images_per_second"]["median"]
        for entry in summary
    }
    return [
        {"peer": system, "batch": batch, "ratio": medians["synfer-rt", batch] / speed}
        for (system, batch), speed in medians.items()
        if system != "synfer-rt"
    ]


def differences(images: Mapping[str, np.ndarray]) -> list[dict[str, Any]]:
    """How far each peer's images are from synfer-rt's, in 8-bit levels.

    Both were asked for the same samples, so anything but rounding means that the systems did not
    do the same work.
    """
    own = images["synfer-rt"].astype(np.int16)
    return [
        {
            "peer": system,
            "images": len(own),
            "mean": float(np.abs(own - other).mean()),
            "max": int(np.abs(own - other).max()),
        }
        for system, other in images.items()
        if system != "synfer-rt"
    ]


def _spread(visits: Iterable[Sequence[float]]) -> dict[str, float]:
    visits = list(visits)
    return {
        "median": statistics.median(map(statistics.median, visits)),
        "min": min(map(min, visits)),
        "max": max(map(max, visits)),
    }


def _largest(records: Iterable[Mapping[str, Any]], key: str) -> int | None:
    known = [record[key] for record in records if record[key] is not None]
    return max(known, default=None)


@contextmanager
def _timed(seconds: dict[str, float], name: str) -> Iterator[None]:
    started = time.perf_counter()
    try:
        yield
    finally:
        seconds[name] += time.perf_counter() - started
