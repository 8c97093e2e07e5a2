"""NVIDIA's driver, asked directly: which GPUs there are, before any runtime is installed."""

from __future__ import annotations

import ctypes
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

_MAJOR, _MINOR = 75, 76
"""CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR and _MINOR of CUDA's driver API."""
RTX_CAPABILITIES = ("sm75", "sm80", "sm86", "sm89", "sm120", "sm121")
"""The compute capabilities that TensorRT-RTX 1.7 compiles for."""
ONNXRUNTIME_CAPABILITIES = ("sm75", "sm80", "sm86", "sm89", "sm90", "sm120")
"""The compute capabilities that onnxruntime-gpu 1.31 has machine code for, and no PTX.

Machine code runs on the same major capability from its minor one on (CUDA C++ Programming Guide,
binary compatibility).
"""


@dataclass(frozen=True)
class Gpu:
    """A GPU: its name, its compute capability like "sm89", and the driver's CUDA like "13.0"."""

    name: str
    capability: str
    cuda: str

    @property
    def backends(self) -> tuple[str, ...]:
        """The backends that can use it, the best first."""
        return tuple(backend for backend, runs in self._runs().items() if runs)

    @property
    def others(self) -> tuple[str, ...]:
        """The backends for GPUs that have no code for this one."""
        return tuple(backend for backend, runs in self._runs().items() if not runs)

    def _runs(self) -> dict[str, bool]:
        major, minor = self.capability[:-1], self.capability[-1]
        alike = (known for known in ONNXRUNTIME_CAPABILITIES if known[:-1] == major)
        return {
            "tensorrt-rtx-cuda": self.capability in RTX_CAPABILITIES,
            "onnxruntime-cuda": any(known[-1] <= minor for known in alike),
            "tensorrt-cuda": True,
        }


def obstacle(backend: str) -> tuple[str, str] | None:
    """Why the first GPU cannot run a backend, with the remedy; None if nothing is known."""
    found = gpu()
    if found is None or backend not in found.others:
        return None
    return (
        f"it has no code for {found.name} ({found.capability})",
        f"use {' or '.join(found.backends)}",
    )


def gpu() -> Gpu | None:
    """The first GPU that the driver shows; None without a driver or a GPU."""
    with suppress(OSError, AttributeError):
        return _first(ctypes.CDLL("libcuda.so.1"))
    return None


def _first(driver: Any) -> Gpu | None:
    """The first GPU of a driver's library; None if a call fails."""
    device, count, version, major, minor = (ctypes.c_int() for _ in range(5))
    name = ctypes.create_string_buffer(256)
    calls = (
        lambda: driver.cuInit(0),
        lambda: driver.cuDeviceGetCount(ctypes.byref(count)),
        lambda: driver.cuDeviceGet(ctypes.byref(device), 0),
        lambda: driver.cuDeviceGetName(name, len(name), device),
        lambda: driver.cuDeviceGetAttribute(ctypes.byref(major), _MAJOR, device),
        lambda: driver.cuDeviceGetAttribute(ctypes.byref(minor), _MINOR, device),
        lambda: driver.cuDriverGetVersion(ctypes.byref(version)),
    )
    if any(call() != 0 for call in calls):
        return None
    cuda = f"{version.value // 1000}.{version.value % 1000 // 10}"
    return Gpu(name.value.decode(errors="replace"), f"sm{major.value}{minor.value}", cuda)
