"""The measurement: fresh processes, interleaved, warm-up apart, every number kept.

A case is one system at its batch sizes. A visit to a case is a new process that loads the system
and, at each batch size, warms it up and runs it. Visits go round all cases, then round again, so
that a slow phase of the machine affects all of them alike. A visit that fails ends no other.
"""

from __future__ import annotations

import math
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from synfer_rt.backends import BACKENDS
from synfer_rt.bench import flops, matmul_peak, sections
from synfer_rt.bench.gpu_monitor import Meter, Usage, Watch, open_meter
from synfer_rt.bench.systems import STAGES, Case, Setup, Stopwatch, System
from synfer_rt.jobs.kept_log import kept_log

WARM_UP_STEPS = 2
RUNS = 3
"""Runs of a visit at each batch size, unless a single batch takes as long as all should."""
ON_CPU, _ON_GPU = 1.0, 3.0
"""Seconds that all runs of a visit take together at each batch size. The driver of a GPU averages
its utilisation over up to a second."""
_LEAST = 10.0
"""Seconds that must be left for a section that was not run before."""
_TIME_UP = "the time was up; `--seconds` gives more"


@dataclass
class Measured:
    """What was measured, as JSON values, and each system's first images, uint8 [n, H, W, 3].

    `flops` are the operations for an image by engine, `peak` is what matmul_peak.measure returns;
    both are None if they could not be found. `failed` and `left_out` have a `section` and the
    reason.
    """

    visits: list[dict[str, Any]] = field(default_factory=list)
    images: dict[str, np.ndarray] = field(default_factory=dict)
    flops: dict[str, int] | None = None
    peak: dict[str, Any] | None = None
    failed: list[dict[str, str]] = field(default_factory=list)
    left_out: list[dict[str, str]] = field(default_factory=list)


@dataclass(frozen=True)
class _Part:
    """A section to run: a visit to a case in round `repeat`, or a key of _ARITHMETIC."""

    repeat: int
    what: Case | str

    @property
    def name(self) -> str:
        return str(self.what)


def interleaved(cases: Sequence[Case], repeats: int) -> list[tuple[int, Case]]:
    """The order of visits, (repeat, case): A B A B, never A A B B."""
    return [(repeat, case) for repeat in range(repeats) for case in cases]


def measure(
    setup: Setup,
    cases: Sequence[Case],
    repeats: int,
    progress: Callable[[int, int, str], None],
    seconds: float | None = None,
    begun: Measured | None = None,
    keep: Callable[[Measured], None] = lambda measured: None,
) -> Measured:
    """Visit every case `repeats` times, count FLOPs and measure the peak, within `seconds` if any.

    `progress(number, count, name)` is called before each section, and `keep` with what is measured
    so far after each. What fails is not tried again. What `begun` has is not measured again.
    """
    parts = [_Part(repeat, case) for repeat, case in interleaved(cases, repeats)]
    parts[1:1] = (_Part(0, name) for name in _ARITHMETIC)  # after what matters most
    deadline = None if seconds is None else time.monotonic() + seconds
    measured = begun or Measured()
    took: dict[str, float] = {}
    given_up: set[str] = set()
    for number, part in enumerate(parts):
        left = None if deadline is None else deadline - time.monotonic()
        if part.name in given_up or _is_there(measured, part):
            continue
        if left is not None and left < took.get(part.name, _LEAST):
            if part.repeat == 0:
                measured.left_out.append({"section": part.name, "why": _TIME_UP})
            given_up.add(part.name)
            continue
        progress(number, len(parts), part.name)
        outcome = _outcome(setup, part, left)
        took[part.name] = outcome.seconds
        _keep(measured, part, outcome)
        if outcome.problem is not None:
            given_up.add(part.name)
        keep(measured)
    return measured


def _is_there(measured: Measured, part: _Part) -> bool:
    if not isinstance(part.what, Case):
        return getattr(measured, _FIELDS[part.what]) is not None
    there = {(v["repeat"], v["system"], v["batch"]) for v in measured.visits}
    return all((part.repeat, part.what.system, batch) in there for batch in part.what.batches)


def _outcome(setup: Setup, part: _Part, seconds: float | None) -> sections.Outcome:
    if isinstance(part.what, Case):
        return sections.run(visit, setup, part.what, seconds=seconds)
    most = None if seconds is None else min(seconds, _LONGEST_ARITHMETIC)
    return sections.run(_ARITHMETIC[part.what], setup, seconds=most)


def _keep(measured: Measured, part: _Part, outcome: sections.Outcome) -> None:
    name = part.name
    if isinstance(part.what, Case):
        for record, shown in outcome.rows:
            order = len(measured.visits)
            measured.visits.append({"order": order, "repeat": part.repeat, **record})
            if part.what.settings:  # meant to make other images
                continue
            if len(shown) >= len(measured.images.get(part.what.system, ())):
                measured.images[part.what.system] = shown
        if lacking := part.what.batches[len(outcome.rows) :][:1]:
            name = str(replace(part.what, batches=lacking))
    else:
        for key, value in outcome.rows:
            setattr(measured, key, value)
    if outcome.stopped:
        measured.left_out.append({"section": name, "why": f"{_TIME_UP} ({outcome.problem})"})
    elif outcome.problem is not None:
        measured.failed.append({"section": name, "why": outcome.problem})


def peak(setup: Setup) -> Iterator[tuple[str, Any]]:
    """The field `peak` of Measured."""
    yield "peak", matmul_peak.measure(setup.backend, setup.threads)


def operations(setup: Setup) -> Iterator[tuple[str, Any]]:
    """The field `flops` of Measured; the engines run once, on the CPU."""
    yield "flops", flops.of_engines(setup.open())


_ARITHMETIC = {"the peak": peak, "FLOPs": operations}
_FIELDS = {"the peak": "peak", "FLOPs": "flops"}
_LONGEST_ARITHMETIC = 60.0
"""Seconds for each of these, if there is a limit at all."""


def visit(setup: Setup, case: Case) -> Iterator[tuple[dict[str, Any], np.ndarray]]:
    """Load, warm up and run one case in this process: a record and first images of each batch."""
    if case.system in BACKENDS:
        setup = replace(setup, backend=case.system)
    meter = open_meter() if setup.on_gpu else None
    used_before = 0 if meter is None else meter.read().memory_bytes or 0
    started = time.perf_counter()
    with kept_log() as said:
        system = _load(setup, case)
        loaded = time.perf_counter() - started
        with closing(system):
            for batch in case.batches:
                record, images = _measured(system, setup, batch, meter)
                usage = record.pop("usage")
                gpu = None if usage is None else _gpu(usage, used_before, record["runs"], batch)
                yield (
                    {
                        "system": case.system,
                        "settings": dict(case.settings) if case.own else None,
                        "batch": batch,
                        "ran": dict(system.ran),
                        "notes": [*system.notes, *dict.fromkeys(text for _, text in said)],
                        "load_seconds": loaded,
                        **record,
                        "flops": system.flops(),
                        "peak_rss_bytes": system.peak_rss_bytes(),
                        "gpu": gpu,
                    },
                    images,
                )


def _measured(
    system: System, setup: Setup, batch: int, meter: Meter | None
) -> tuple[dict[str, Any], np.ndarray]:
    """The warm-up and the runs at one batch size, and the first images.

    The warm-up is a batch of at most WARM_UP_STEPS steps, which touches every shape, and then one
    of all steps; if that takes long enough, it is already the measurement.
    """
    least = _ON_GPU if setup.on_gpu else ON_CPU
    with tempfile.TemporaryDirectory(prefix="synfer-rt-bench-") as directory:
        folder = Path(directory)
        started = time.perf_counter()
        _run(system, batch, 1, min(setup.steps, WARM_UP_STEPS), folder / "warm-up")
        warm = time.perf_counter() - started
        with Watch(meter) as watch:
            runs = [_run(system, batch, 1, setup.steps, folder / "first")]
        images = system.images(folder / "first")
        first = runs[0]["total"]
        if first < least:
            warm += first
            batches = math.ceil(least / RUNS / first)
            with Watch(meter) as watch:
                runs = [
                    _run(system, batch, batches, setup.steps, folder / str(i)) for i in range(RUNS)
                ]
    return {"warm_up_seconds": warm, "runs": runs, "usage": watch.usage()}, images


def _run(system: System, batch: int, batches: int, steps: int, out: Path) -> dict[str, Any]:
    """The seconds of a whole run of so many batches, by stage and by engine."""
    watch = Stopwatch()
    out.mkdir(parents=True)
    started = time.perf_counter()
    system.run(batch, batches, steps, watch, out)
    total = time.perf_counter() - started if watch.total is None else watch.total
    stages = {name: watch.stages.get(name, 0.0) for name in STAGES}
    stages["other"] = total - sum(stages.values())
    return {
        "batches": batches,
        "total": total,
        "stages": stages,
        "engines": dict(watch.engines),
        "calls": {name: rows / (batch * batches) for name, rows in watch.rows.items()},
        "device_seconds": None if watch.clock is None else watch.device,
        "device_clock": watch.clock,
    }


def _gpu(
    usage: Usage, used_before: int, runs: Sequence[dict[str, Any]], batch: int
) -> dict[str, Any]:
    """What the GPU did in the runs; its memory is what was not used before the system loaded."""
    images = batch * sum(run["batches"] for run in runs)
    memory = usage.memory_bytes
    return {
        "busy": usage.busy,
        "memory_bytes": None if memory is None else max(memory - used_before, 0),
        "watts": usage.watts,
        "joules_per_image": None if usage.joules is None else usage.joules / images,
        "source": usage.source,
    }


def _load(setup: Setup, case: Case) -> System:
    if case.compared is not None:
        from synfer_rt.bench import worker

        return worker.load(setup, case.system, case.compared)
    if case.settings or case.system == "synfer-rt" or case.system in BACKENDS:
        from synfer_rt.bench.runtime import Runtime

        return Runtime(setup, dict(case.settings), max(case.batches))
    from synfer_rt.bench import peers

    return peers.load(case.system, setup)
