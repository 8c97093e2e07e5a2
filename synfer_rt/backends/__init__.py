"""Runtimes that execute a bundle's engines, behind one small protocol.

A backend's name is `<runtime>-<device>`. Each runtime has a file of its own in this package, which
is imported only when it is used.
"""

from __future__ import annotations

import difflib
import os
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any, Protocol

import numpy as np

from synfer_rt.bundle import Bundle, EngineSpec
from synfer_rt.errors import UserError

BACKENDS = ("onnxruntime-tensorrt", "onnxruntime-cuda", "onnxruntime-cpu")
"""The best first; `auto` takes the first that works."""

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
def statuses() -> tuple[BackendStatus, ...]:
    """What works on this machine, in the order of BACKENDS; each is really tried, once."""
    from synfer_rt.backends import onnxruntime

    return tuple(onnxruntime.status(name) for name in BACKENDS)


def installation_problem() -> str | None:
    """What is wrong with the installed runtimes, in one sentence with its remedy; None if sound."""
    from synfer_rt.backends import onnxruntime

    return onnxruntime.installation_problem()


def choose(backend: str = "auto") -> tuple[str, str]:
    """The backend that `backend` (a name of BACKENDS, or auto) means here, and a sentence on why.

    Raises UserError for an unknown name, and for one that does not work here.
    """
    if backend == "auto":
        failed = []
        for status in statuses():
            if status.works:
                others = "; ".join(f"not {s.name}: {s.reason}" for s in failed)
                return status.name, f"{status.name} ({others})" if failed else status.name
            failed.append(status)
        raise UserError(f"No backend works here: {failed[-1].reason}; {failed[-1].remedy}.")
    if backend not in BACKENDS:
        near = difflib.get_close_matches(backend.lower(), BACKENDS, 1, 0.0)[0]
        raise UserError(
            f"Unknown backend {backend!r}; the nearest is {near} "
            f"(known are auto, {', '.join(BACKENDS)})."
        )
    status = next(status for status in statuses() if status.name == backend)
    if not status.works:
        raise UserError(f"{backend} does not work here: {status.reason}; {status.remedy}.")
    return backend, f"{backend} (as asked)"


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
    one thread, and a file that the runtime refuses.
    """
    from synfer_rt.backends import onnxruntime

    if threads is not None and threads < 1:
        raise UserError(f"{threads} threads cannot compute anything; write 1 or more.")
    if name not in bundle.engines:
        raise UserError(f"{bundle.name} has no engine {name}; it has {', '.join(bundle.engines)}.")
    backend, _ = choose(backend)
    return onnxruntime.OnnxRuntimeEngine(bundle, name, backend, threads or default_threads())
