"""CUDA events around the calls of engines: the time that a GPU itself takes for each.

They are recorded through NVIDIA's driver, which needs no package, on the stream that CUDA engines
share (backends/sessions.py).
"""

from __future__ import annotations

import ctypes
from collections import defaultdict
from collections.abc import Generator
from contextlib import contextmanager, suppress
from typing import Any

_PER_THREAD_STREAM = ctypes.c_void_p(2)
"""CU_STREAM_PER_THREAD of CUDA's driver API, which is `cudaStreamPerThread`."""


class _NoEventError(RuntimeError):
    """The driver refused a call, as where this thread has no CUDA context."""


class CudaEvents:
    """Pairs of events by name; `driver` is the library libcuda.

    Without a driver, or if it refuses, nothing is measured and `seconds` is None.
    """

    def __init__(self, driver: Any) -> None:
        self._driver = driver
        self._pairs: dict[str, list[tuple[ctypes.c_void_p, ctypes.c_void_p]]] = defaultdict(list)
        self._refused = driver is None

    @contextmanager
    def around(self, name: str) -> Generator[None]:
        """Record an event before and after what the block enqueues."""
        begin = self._recorded()
        yield
        end = self._recorded()
        if begin is not None and end is not None:
            self._pairs[name].append((begin, end))

    def seconds(self) -> dict[str, float] | None:
        """The GPU's time by name, once it has done all that was enqueued; events are freed."""
        found: dict[str, float] = defaultdict(float)
        for name, pairs in self._pairs.items():
            for begin, end in pairs:
                found[name] += self._elapsed(begin, end)
        self._pairs.clear()
        return None if self._refused or not found else dict(found)

    def _recorded(self) -> ctypes.c_void_p | None:
        if self._refused:
            return None
        event = ctypes.c_void_p()
        try:
            self._call("cuEventCreate", ctypes.byref(event), ctypes.c_uint(0))
            self._call("cuEventRecord", event, _PER_THREAD_STREAM)
        except _NoEventError:
            self._refused = True
            return None
        return event

    def _elapsed(self, begin: ctypes.c_void_p, end: ctypes.c_void_p) -> float:
        milliseconds = ctypes.c_float()
        try:
            self._call("cuEventSynchronize", end)
            self._call("cuEventElapsedTime", ctypes.byref(milliseconds), begin, end)
            for event in (begin, end):
                self._call("cuEventDestroy_v2", event)
        except _NoEventError:
            self._refused = True
        return milliseconds.value / 1000

    def _call(self, name: str, *arguments: Any) -> None:
        function = getattr(self._driver, name, None)
        if function is None or function(*arguments) != 0:
            raise _NoEventError(name)


def cuda_events() -> CudaEvents:
    """Events through the driver of this machine, if it has one."""
    driver = None
    with suppress(OSError):
        driver = ctypes.CDLL("libcuda.so.1")
    return CudaEvents(driver)
