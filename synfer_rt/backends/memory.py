"""Free memory, which limits the number of images that are computed at once."""

from __future__ import annotations

import ctypes
from contextlib import suppress
from pathlib import Path
from typing import Any

_GROUP = Path("/sys/fs/cgroup")
ASSUMED = 6 << 30
"""Free bytes of a GPU that does not say; a card with 8 GB has them."""


def free_memory(backend: str) -> int | None:
    """The free bytes on a backend's device; None if unknown.

    ONNX Runtime does not tell that of its GPU, so the driver is asked; what it does not know is
    ASSUMED.
    """
    if backend.endswith("-cpu"):
        found = [size for size in (_machine(), _container()) if size is not None]
        return min(found, default=None)
    if backend.startswith("onnxruntime-"):
        return _gpu() or ASSUMED
    from synfer_rt.backends import cuda

    return None if cuda.problem() else cuda.device().free_memory()


class _NvmlMemory(ctypes.Structure):
    """nvmlMemory_t of NVML's API reference."""

    _fields_ = tuple((name, ctypes.c_ulonglong) for name in ("total", "free", "used"))


def _gpu() -> int | None:
    """The free bytes of the first GPU that CUDA shows, by the driver's libraries; None if unknown.

    CUDA_VISIBLE_DEVICES may hide or reorder GPUs, so NVML is asked for the one at CUDA's address
    on the bus. Of a GPU that is split (MIG), CUDA's total is that of the part.
    """
    with suppress(OSError, AttributeError):  # no driver, or one without these functions
        return _by_driver(ctypes.CDLL("libcuda.so.1"), ctypes.CDLL("libnvidia-ml.so.1"))
    return None


def _by_driver(driver: Any, nvml: Any) -> int | None:
    device, total, handle, memory = (
        ctypes.c_int(),
        ctypes.c_size_t(),
        ctypes.c_void_p(),
        _NvmlMemory(),
    )
    address = ctypes.create_string_buffer(32)
    calls = (
        lambda: driver.cuInit(0),
        lambda: driver.cuDeviceGet(ctypes.byref(device), 0),
        lambda: driver.cuDeviceTotalMem_v2(ctypes.byref(total), device),
        lambda: driver.cuDeviceGetPCIBusId(address, len(address), device),
        lambda: nvml.nvmlInit_v2(),
        lambda: nvml.nvmlDeviceGetHandleByPciBusId_v2(address, ctypes.byref(handle)),
        lambda: nvml.nvmlDeviceGetMemoryInfo(handle, ctypes.byref(memory)),
    )
    if any(call() != 0 for call in calls):
        return None
    return min(int(memory.free), int(total.value))


def _machine() -> int | None:
    """The bytes that Linux can give out without swapping."""
    try:
        for line in Path("/proc/meminfo").read_text().splitlines():
            name, _, size = line.partition(":")
            if name == "MemAvailable":
                return int(size.split()[0]) * 1024
    except (OSError, ValueError):
        pass
    return None


def _container() -> int | None:
    """The bytes below a container's limit; cached files count as used, as the kernel does."""
    try:
        limit = int((_GROUP / "memory.max").read_text())
        return max(limit - int((_GROUP / "memory.current").read_text()), 0)
    except (OSError, ValueError):  # no such file, or no limit, which is written as "max"
        return None
