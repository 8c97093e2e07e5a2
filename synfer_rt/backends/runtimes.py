"""The backends by name, and the module of the runtime that each of them uses.

A runtime's module is imported only when one of its backends is used. It fulfils `Runtime`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache, partial
from importlib import import_module
from pathlib import Path
from typing import Protocol, cast

import numpy as np

from synfer_rt.backends import driver, libraries, probes
from synfer_rt.backends.engine import Engine, first_line
from synfer_rt.backends.native_output import caught_output
from synfer_rt.bundle import Bundle

_MODULES = {
    "tensorrt-rtx-cuda": "tensorrt",
    "tensorrt-cuda": "tensorrt",
    "onnxruntime-tensorrt": "onnxruntime",
    "onnxruntime-cuda": "onnxruntime",
    "openvino-cpu": "openvino",
    "onnxruntime-cpu": "onnxruntime",
}
BACKENDS = tuple(_MODULES)
"""The names of the backends, the best first; `auto` takes the first that works.

On the CPU, OpenVINO comes before ONNX Runtime: where the CPU has bfloat16 it computes the denoiser
in that, and is 1.1 to 1.5 times as fast (docs/results/throughput.md).
"""
TARGETS: Mapping[str, str] = {"tensorrt-rtx-cuda": "tensorrt-rtx", "tensorrt-cuda": "tensorrt"}
"""The backends that run plans, each with its library: the name of a pip package, and the key of a
bundle's `plans`. The other backends run the ONNX files."""

COMPILING = ("tensorrt-rtx-cuda", "tensorrt-cuda", "onnxruntime-tensorrt")
"""Backends that compile a network for seconds or minutes before they compute it."""
_COMPUTE_FIRST = ("onnxruntime-cuda",)
"""Backends that may load and yet lack a library that their first convolution asks for."""


@dataclass(frozen=True)
class BackendStatus:
    """Whether a backend works here; if it does not, the reason and the remedy."""

    name: str
    works: bool
    reason: str
    remedy: str


class Runtime(Protocol):
    """The module of a runtime."""

    def status(self, backend: str) -> BackendStatus:
        """Whether the libraries of a backend, and the device that it needs, are here."""
        ...

    def run_file(self, file: Path, inputs: Mapping[str, np.ndarray], backend: str) -> np.ndarray:
        """The only output of a small ONNX file, in host memory. Raises any exception."""
        ...

    def open_engine(
        self, bundle: Bundle, name: str, backend: str, threads: int, rows: int | None
    ) -> Engine:
        """Load an engine, ready for calls of `rows` images if they are known; it takes any number.

        Raises UserError for a file or plan that the runtime refuses.
        """
        ...

    def computes(self, bundle: Bundle, backend: str) -> tuple[str, str, str]:
        """Precision of the denoiser, the library with its version, and the device."""
        ...


def runtime(backend: str) -> Runtime:
    """The module of a backend's runtime."""
    return cast(Runtime, import_module(f"{__package__}.{_MODULES[backend]}"))


@cache
def status(backend: str) -> BackendStatus:
    """Whether a backend, one of BACKENDS, works on this machine; it is really tried, once.

    Of `_COMPUTE_FIRST` it is also tried whether they compute; of the others `probed` says so.
    """
    return probed(backend) if backend in _COMPUTE_FIRST else _loaded(backend)


@cache
def probed(backend: str) -> BackendStatus:
    """Whether a backend works here and computes small networks (probes.py) correctly.

    It takes a second, but minutes where the backend compiles each network.
    """
    found = _loaded(backend)
    if not found.works:
        return found
    networks = probes.plain() + (probes.fused() if backend == "onnxruntime-cuda" else ())
    with caught_output():
        failures = probes.failures(partial(_run_file, backend=backend), networks)
    if not failures:
        return found
    reasons: dict[str, list[str]] = {}
    remedy = "update the device's driver and the runtime, or choose another `backend`"
    for network, said in failures.items():
        if lacking := libraries.missing(said):
            said, remedy = lacking
        reasons.setdefault(first_line(said), []).append(network)
    reason = "; ".join(f"{', '.join(networks)}: {said}" for said, networks in reasons.items())
    return BackendStatus(backend, False, reason, remedy)


def _loaded(backend: str) -> BackendStatus:
    """The runtime's own word; if it is no, whether the GPU or libraries are the reason."""
    with caught_output() as printed:
        found = runtime(backend).status(backend)
    if found.works:
        return found
    lacking = driver.obstacle(backend) or libraries.missing(found.reason + printed.text)
    return BackendStatus(backend, False, *lacking) if lacking else found


def _run_file(file: Path, inputs: Mapping[str, np.ndarray], backend: str) -> np.ndarray:
    return runtime(backend).run_file(file, inputs, backend)


def statuses() -> tuple[BackendStatus, ...]:
    """The status of every backend on this machine, in the order of BACKENDS."""
    return tuple(status(name) for name in BACKENDS)


def computes(bundle: Bundle, backend: str) -> tuple[str, str, str]:
    """The denoiser's precision on a backend that works here, the library with version, the device.

    The precision is fp32, bf16, fp16 or that of a plan; the device is "cpu", "gpu" or a compute
    capability.
    """
    return runtime(backend).computes(bundle, backend)
