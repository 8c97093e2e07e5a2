"""The measurement: fresh processes, interleaved, warm-up apart, every number kept.

A case is one system at one batch size. A visit to a case is a new process that loads the system,
warms it up and runs it. Visits go round all cases, then round again, so that a slow phase of the
machine affects all of them alike. Since a visit has a process of its own, its peak memory is true.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures.process import BrokenProcessPool
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from synfer_rt.backends import BACKENDS
from synfer_rt.bench import machine
from synfer_rt.bench.systems import STAGES, Case, Setup, Stopwatch, System
from synfer_rt.errors import UserError
from synfer_rt.fresh_processes import fresh_processes

WARM_UP_STEPS = 2
_SHORTEST_VISIT = 1.0
"""Seconds: a visit repeats its run until it has measured for so long."""


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

    Returns the visits as JSON values in the order in which they were made, and each system's first
    images, uint8 [n, H, W, 3]. Raises UserError where a system does, and for a visit whose process
    died.
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
            f"The process of {case.system} at batch {case.batch} was killed, most likely because "
            "memory ran out; leave that size out of `batch`."
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
