"""What sampling asks of CUDA: the calls of a step and of a piece, on the fake CUDA runtime.

    sampling.py ENGINES [--batch N] [--form FORM]

Runs the loop on the device (`sampling/on_device.py`) on the bundle's CUDA engines, in trajectories
of 8 and of 16 steps, with semantic guidance of the form from the middle on if one is named. What
the longer one calls more often belongs to the steps. Smaller batches come first (BEFORE), whose
memory does not suffice for the next. Exits 1 if a step takes more than 3 CUDA calls, waits for the
device or copies to or from it, or if an engine gives up its CUDA graphs.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections import Counter
from pathlib import Path
from typing import Any

from synfer_rt import Bundle, make_requests, open_bundle, trajectory
from synfer_rt.backends import probes
from synfer_rt.backends.loaded_engines import LoadedEngines
from synfer_rt.sampling.guidance import SemanticGuidance
from synfer_rt.sampling.observer import Observer
from synfer_rt.sampling.on_device import OnDevice
from synfer_rt.sampling.preparation import prepare
from tests.fake_cuda.calls import Calls, counted, device_memory

BACKEND = "onnxruntime-cuda"
STEPS = (8, 16)
BEFORE = (8, 16)
MOST_A_STEP = 3


def open_engines(bundle: Bundle) -> LoadedEngines:
    """The engines on a backend that rightly is said not to work: its kernels compute nothing."""
    probes.failures = lambda run, probes: {}
    return LoadedEngines(bundle, BACKEND, 1)


def count(
    loop: OnDevice, bundle: Bundle, batch: int, semantic: SemanticGuidance | None
) -> dict[int, Calls]:
    """The calls of a piece by the number of its steps, after two that capture CUDA graphs."""
    found: dict[int, Calls] = {}
    requests = make_requests(bundle, layout="none")[:batch]
    for steps in STEPS:
        way = trajectory(
            bundle.defaults.solver, bundle.schedule, steps, prediction_type=bundle.prediction_type
        )
        piece = prepare(requests, bundle, way)
        for _ in range(3):
            with counted() as found[steps]:
                loop.finish(piece, way, semantic)
    return found


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("engines", type=Path)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--form", help="of semantic guidance, such as latent")
    given = parser.parse_args()
    bundle = open_bundle(given.engines)
    semantic = SemanticGuidance(given.form, 0.1, 0.5) if given.form else None
    loaded = open_engines(bundle)
    loop = OnDevice.of(loaded, ["denoiser"], semantic, Observer())
    if loop is None:
        print(f"{given.engines} has not all the CUDA engines that sampling needs.")
        return 1
    for batch in BEFORE:
        count(loop, bundle, batch, semantic)
    calls = count(loop, bundle, given.batch, semantic)
    short, long = (calls[steps] for steps in STEPS)
    more = STEPS[1] - STEPS[0]
    a_step = {kind: n / more for kind, n in (long.by_kind() - short.by_kind()).items()}
    waits = (long.waits() - short.waits()) / more
    rest = short.by_kind() - Counter({kind: round(n * STEPS[0]) for kind, n in a_step.items()})

    def line(found: dict[str, float]) -> str:
        return ", ".join(f"{kind} {n:g}" for kind, n in found.items()) or "none"

    print(f"batch {given.batch}, a step: {line(a_step)}; waits {waits:g}")
    print(f"batch {given.batch}, the rest of a piece: {line(dict(rest))}")
    print(f"device memory: {device_memory()[1] / 1e6:.0f} MB at most")
    copies = a_step.get("upload", 0) + a_step.get("download", 0)
    engines: dict[str, Any] = {**loaded._loaded}
    without = [name for name, engine in engines.items() if not engine._graphs]
    if without:
        print(f"no CUDA graphs: {', '.join(without)}")
    return int(sum(a_step.values()) > MOST_A_STEP or waits > 0 or copies > 0 or bool(without))


if __name__ == "__main__":
    status = main()
    sys.stdout.flush()
    os._exit(status)  # ONNX Runtime would free kernels that there are not
