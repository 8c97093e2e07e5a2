"""Runtimes that execute a bundle's engines, behind one small protocol.

A backend's name is `<runtime>-<device>`. Each runtime has a file of its own in this package, which
is imported only when it is used.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from synfer_rt import ranges
from synfer_rt.bundle import Bundle, EngineSpec
from synfer_rt.errors import UserError, nearest

_FILES = {
    "tensorrt-rtx-cuda": "tensorrt",
    "tensorrt-cuda": "tensorrt",
    "onnxruntime-tensorrt": "onnxruntime",
    "onnxruntime-cuda": "onnxruntime",
    "openvino-cpu": "openvino",
    "onnxruntime-cpu": "onnxruntime",
}
BACKENDS = tuple(_FILES)
"""The best first; `auto` takes the first that works and that the bundle has engines for.

On the CPU, OpenVINO is before ONNX Runtime: where the CPU has bfloat16 it computes the denoiser in
that, and is 1.1 to 1.5 times as fast (docs/results/throughput.md). It computes some operators
otherwise than ONNX says: see `runs_on`.
"""
_OPENVINO, _ONNXRUNTIME = "openvino-cpu", "onnxruntime-cpu"
TARGETS = {"tensorrt-rtx-cuda": "tensorrt-rtx", "tensorrt-cuda": "tensorrt"}
"""The backends that run plans, and those of which library: a key of a bundle's `plans`, and the
name of a pip package. The others run the ONNX files."""

Value = Any
"""A numpy array, or the runtime's own handle of a tensor on its device."""


class Engine(Protocol):
    """A loaded engine."""

    spec: EngineSpec
    backend: str

    def run(self, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Outputs by name, in host memory. Extra inputs are ignored."""
        ...

    def run_on_device(self, inputs: Mapping[str, Value]) -> dict[str, Value]:
        """Outputs by name, left where they were computed.

        They may be inputs of any engine of the same backend; `to_numpy` brings them home.
        """
        ...


@dataclass(frozen=True)
class BackendStatus:
    """Whether a backend works here; if not, why, and what would make it work."""

    name: str
    works: bool
    reason: str
    remedy: str


def to_numpy(value: Value) -> np.ndarray:
    """A value of `Engine.run_on_device` as a numpy array."""
    return value if isinstance(value, np.ndarray) else value.numpy()


@cache
def status(backend: str) -> BackendStatus:
    """Whether a backend, one of BACKENDS, works on this machine; it is really tried, once."""
    return _runtime(backend).status(backend)


def statuses() -> tuple[BackendStatus, ...]:
    """What works on this machine, in the order of BACKENDS."""
    return tuple(status(name) for name in BACKENDS)


def choose(backend: str = "auto", bundle: Bundle | None = None) -> tuple[str, str]:
    """The backend that `backend` (a name of BACKENDS, or auto) means here, and a sentence on why.

    With a bundle, it is one that the bundle has engines for: a backend that runs plans needs them
    for this very GPU and this very version of its library; auto takes OpenVINO only where the
    bundle says how far each engine is off there. Raises UserError for an unknown name, and for a
    backend that does not work here or has no engines in the bundle.
    """
    if backend != "auto":
        if backend not in BACKENDS:
            raise UserError(
                f"Unknown backend {backend!r}; the nearest is {nearest(str(backend), BACKENDS)} "
                f"(known are auto, {', '.join(BACKENDS)})."
            )
        if problem := _obstacle(backend, bundle):
            raise UserError("{} does not work here: {}; {}.".format(backend, *problem))
        return backend, f"{backend} ({'; '.join(['as asked', *_remarks(backend, bundle)])})"
    failed = []
    for name in BACKENDS:
        problem = _obstacle(name, bundle)
        if problem is None and bundle is not None and (doubt := _doubt(name, bundle)):
            problem = doubt, ""
        if problem is None:
            # Of backends that are not here, `synfer-rt doctor` has the reasons.
            here = [(other, reason) for other, reason in failed if status(other).works]
            said = [*_remarks(name, bundle), *(f"not {other}: {reason}" for other, reason in here)]
            return name, f"{name} ({'; '.join(said)})" if said else name
        failed.append((name, problem[0]))
    raise UserError(f"No backend works here: {failed[-1][1]}; {status(BACKENDS[-1]).remedy}.")


def default_threads() -> int:
    """The CPU cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def open_engine(
    bundle: Bundle, name: str, backend: str = "auto", threads: int | None = None
) -> Engine:
    """Load the engine `name` of a checked bundle.

    `threads` is the number of CPU threads of one call; None means every usable core. Raises
    UserError for a backend that does not work here, an engine that the bundle lacks, fewer than
    one thread, a plan that is not for this GPU and this version of its library, and a file that
    the runtime refuses.
    """
    if threads is not None and not ranges.is_whole(threads, 1):
        raise UserError(f"{threads} threads cannot compute anything; write 1 or more.")
    if name not in bundle.engines:
        raise UserError(f"{bundle.name} has no engine {name}; it has {', '.join(bundle.engines)}.")
    backend, _ = choose(backend, bundle if backend == "auto" else None)
    backend = runs_on(bundle.engines[name], backend)
    return _runtime(backend).open_engine(bundle, name, backend, threads or default_threads())


def runs_on(spec: EngineSpec, backend: str) -> str:
    """The backend that an engine runs on where `backend` runs its bundle.

    What OpenVINO computes otherwise than ONNX says, by the bundle's own measurement, runs on ONNX
    Runtime beside the others.
    """
    parity = spec.parity_openvino
    wrong = backend == _OPENVINO and parity is not None and not parity.holds
    return _ONNXRUNTIME if wrong else backend


def computes(bundle: Bundle, backend: str) -> tuple[str, str, str]:
    """What a backend that works here computes the denoiser in, its library with version, and where.

    The precision is one of fp32, bf16 and fp16, or as a plan says; the device "cpu", "gpu" or a
    compute capability.
    """
    return _runtime(backend).computes(bundle, backend)


def batch_limits(bundle: Bundle, name: str, backend: str) -> tuple[int, int | None]:
    """The smallest and the largest batch that an engine takes on a backend; None: any."""
    plan = bundle.plans.get(TARGETS.get(backend, ""), {}).get(name)
    return (plan.batches[0], plan.batches[2]) if plan else (1, None)


def cache_home() -> Path:
    """The user's folder for what can be made again."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "synfer-rt"


def cache_directory(runtime: str, bundle: Bundle) -> Path | None:
    """Where a runtime keeps what it compiled of a bundle; None where nothing can be written."""
    try:
        directory = cache_home() / runtime / bundle.bundle_hash
        directory.mkdir(parents=True, exist_ok=True)
    except (OSError, RuntimeError):  # a user without a home
        return None
    return directory if os.access(directory, os.W_OK) else None


@contextmanager
def engine_failures(engine: str, backend: str) -> Iterator[None]:
    """What fails while an engine runs is memory, with rare exceptions: say so in a sentence."""
    try:
        yield
    except Exception as error:  # the runtimes' exceptions share no base class but this
        raise UserError(
            f"{engine} failed on {backend} ({first_line(error)}); if memory ran out, write a "
            "smaller --batch."
        ) from error


def first_line(error: Exception) -> str:
    """An exception's message as the middle of a sentence."""
    return str(error).strip().split("\n")[0].rstrip(".")


def _runtime(backend: str) -> Any:
    return import_module(f"{__name__}.{_FILES[backend]}")


def _remarks(backend: str, bundle: Bundle | None) -> list[str]:
    """What there is to say of a bundle on the backend that runs it, in clauses."""
    if bundle is None or backend != _OPENVINO:
        return []
    specs = bundle.engines.values()
    remarks = []
    if names := [spec.name for spec in specs if runs_on(spec, backend) != backend]:
        why = "since OpenVINO computes otherwise there"
        remarks.append(f"{', '.join(names)} on {_ONNXRUNTIME}, {why}")
    versions = {spec.parity_openvino.version for spec in specs if spec.parity_openvino} - {""}
    here = _runtime(backend).version()
    if others := sorted(versions - {here}):
        remarks.append(
            f"compared there with OpenVINO {', '.join(others)} and this is {here}; "
            f"`synfer-rt verify-engines {bundle.path}` compares again"
        )
    return remarks


def _doubt(backend: str, bundle: Bundle) -> str | None:
    """Why auto does not choose a backend that would run the bundle, or None."""
    if backend != _OPENVINO:
        return None
    if any(spec.parity_openvino is None for spec in bundle.engines.values()):
        return (
            "this bundle was not compared with ONNX Runtime there; "
            f"`synfer-rt verify-engines {bundle.path}` does it"
        )
    if all(runs_on(spec, backend) != backend for spec in bundle.engines.values()):
        return "OpenVINO computes every engine otherwise"
    return None


def _obstacle(backend: str, bundle: Bundle | None) -> tuple[str, str] | None:
    """Why a backend cannot be used, and what would help, or None."""
    found = status(backend)
    if not found.works:
        return found.reason, found.remedy
    if bundle is None or backend not in TARGETS:
        return None
    return _runtime(backend).obstacle(bundle, backend)
