"""How long a benchmark will take, before it is run: its operations over the machine's peak."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping

import numpy as np

from synfer_rt.bench import flops, matmul_peak, measure
from synfer_rt.bench.runtime import run_of
from synfer_rt.bench.settings import Settled
from synfer_rt.bench.systems import Case
from synfer_rt.commands.quantities import duration
from synfer_rt.sampling.steps import plan

SHARE = 0.5
"""The part of the peak that a system is taken to reach; an estimate needs no more."""


def sentences(settled: Settled) -> Iterator[str]:
    """A sentence for each visit, and one for all of them."""
    setup, bundle = settled.setup, settled.setup.open()
    peak = matmul_peak.measure(setup.backend, setup.threads)["flops_per_second"]
    engines = flops.of_engines(bundle)
    total = 0.0
    for case in settled.cases:
        work = _work(settled, case, engines)
        seconds = visit_seconds(work, case.batches, setup.steps, SHARE * peak)
        total += settled.repeats * seconds
        yield (
            f"{case}: {settled.repeats} x {duration(seconds)}, {work / 1e9:.3g} GFLOP an image, "
            "labels included"
        )
    yield (
        f"All visits: about {duration(total)} at {SHARE:.0%} of {peak / 1e12:.3g} TFLOP/s, beside "
        "loading, and converting and compiling the first time. --repeats, --batch, --steps and "
        "--size make it shorter."
    )


def visit_seconds(work: float, batches: tuple[int, ...], steps: int, speed: float) -> float:
    """The seconds of a visit at `work` operations an image and `speed` operations a second.

    A batch of two steps warms up and a whole batch follows, which is the measurement where it takes
    long enough; else the measurement follows.
    """
    seconds = 0.0
    for batch in batches:
        whole = batch * work / speed
        seconds += whole * (1 + measure.WARM_UP_STEPS / max(steps, measure.WARM_UP_STEPS))
        seconds += measure.ON_CPU if whole < measure.ON_CPU else 0.0
    return seconds


def _work(settled: Settled, case: Case, engines: Mapping[str, int]) -> float:
    """The operations for an image; a release's are taken to be those of the setup."""
    bundle, setup = settled.setup.open(), settled.setup
    run = run_of(bundle, 1, setup.solver, setup.steps, dict(case.settings))
    guidance = np.array([run.requests.guidance], np.float32)
    steps = (step.engine for step in plan(bundle, run.trajectory, guidance))
    calls = Counter(["conditioner", *steps, "decoder", *bundle.annotators])
    return sum(count * engines[name] for name, count in calls.items())
