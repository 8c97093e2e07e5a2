"""The backends by name, and the module of the runtime that each of them uses.

A runtime's module is imported only when one of its backends is used. It fulfils `Runtime`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from typing import Protocol, cast

from synfer_rt.backends.engine import Engine
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
        """Try whether a backend works here."""
        ...

    def open_engine(self, bundle: Bundle, name: str, backend: str, threads: int) -> Engine:
        """Load an engine. Raises UserError for a file or plan that the runtime refuses."""
        ...

    def computes(self, bundle: Bundle, backend: str) -> tuple[str, str, str]:
        """Precision of the denoiser, the library with its version, and the device."""
        ...


def runtime(backend: str) -> Runtime:
    """The module of a backend's runtime."""
    return cast(Runtime, import_module(f"{__package__}.{_MODULES[backend]}"))


@cache
def status(backend: str) -> BackendStatus:
    """Whether a backend, one of BACKENDS, works on this machine; it is really tried, once."""
    return runtime(backend).status(backend)


def statuses() -> tuple[BackendStatus, ...]:
    """The status of every backend on this machine, in the order of BACKENDS."""
    return tuple(status(name) for name in BACKENDS)


def computes(bundle: Bundle, backend: str) -> tuple[str, str, str]:
    """The denoiser's precision on a backend that works here, the library with version, the device.

    The precision is fp32, bf16, fp16 or that of a plan; the device is "cpu", "gpu" or a compute
    capability.
    """
    return runtime(backend).computes(bundle, backend)
