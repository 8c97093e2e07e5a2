"""Events of CUDA's driver API as its reference describes them, without a GPU.

https://docs.nvidia.com/cuda/cuda-driver-api/group__CUDA__EVENT.html
"""

from __future__ import annotations

import ctypes
from typing import Any

PER_THREAD_STREAM = 2
INVALID_CONTEXT, INVALID_HANDLE, NOT_READY = 201, 400, 600


class FakeDriver:
    """libcuda through ctypes. Each recorded event comes `milliseconds` after the one before."""

    def __init__(self, milliseconds: float = 2.0, has_context: bool = True) -> None:
        self.milliseconds, self.has_context = milliseconds, has_context
        self.moments: dict[int, float | None] = {}
        self.done: set[int] = set()
        self.made = 0

    def cuEventCreate(self, event: Any, flags: ctypes.c_uint) -> int:
        if not self.has_context:
            return INVALID_CONTEXT
        assert flags.value == 0  # with timing
        self.made += 1
        event._obj.value = self.made
        self.moments[self.made] = None
        return 0

    def cuEventRecord(self, event: ctypes.c_void_p, stream: ctypes.c_void_p) -> int:
        assert stream.value == PER_THREAD_STREAM
        recorded = sum(moment is not None for moment in self.moments.values())
        self.moments[event.value or 0] = recorded * self.milliseconds
        return 0

    def cuEventSynchronize(self, event: ctypes.c_void_p) -> int:
        if event.value not in self.moments:
            return INVALID_HANDLE
        self.done.add(event.value)
        return 0

    def cuEventElapsedTime(
        self, milliseconds: Any, begin: ctypes.c_void_p, end: ctypes.c_void_p
    ) -> int:
        if end.value not in self.done:
            return NOT_READY
        first, last = self.moments[begin.value or 0], self.moments[end.value]
        assert first is not None and last is not None
        milliseconds._obj.value = last - first
        return 0

    def cuEventDestroy_v2(self, event: ctypes.c_void_p) -> int:
        self.done.discard(event.value or 0)
        return 0
