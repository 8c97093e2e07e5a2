"""Reads and resets the counters of the fake CUDA runtime that this process runs on.

Kernels, copies and waits are counted where they are called. What is recorded into a CUDA graph is
counted apart, as captured; a launch of the graph is one call.
"""

from __future__ import annotations

import ctypes
import re
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

# What a program waits for or pays for, by kind. A function of no kind only asks or describes.
KINDS = {
    "graph": r"cudaGraphLaunch",
    "kernel": r"(__)?cuda(Launch(Cooperative)?Kernel(ExC)?)"
    r"|cublas\w*(Gemm|Geam|gemm|geam|Matmul$|Transform$|getr|scal|copy)\w*"
    r"|cudnn(BackendExecute|\w*Forward|ReduceTensor|AddTensor)",
    "upload": r"cudaMemcpy\w* host-to-device",
    "download": r"cudaMemcpy\w* device-to-host",
    "copy": r"cudaMemcpy\w* (device-to-device|host-to-host)|cudaMemcpyFromSymbol",
    "memset": r"cudaMemset\w*",
    "event": r"cudaEventRecord\w*|cudaStreamWaitEvent",
    "callback": r"cudaLaunchHostFunc",
    "wait": r"cuda(Stream|Device|Event)Synchronize",
    "allocation": r"cuda(Malloc\w*|HostAlloc|Free\w*)",
}


def kind(function: str) -> str | None:
    """The kind of a counter, such as `cudaMemcpyAsync host-to-device`; None for no kind.

    A copy that does not return before it is done is an upload, a download or a copy all the same;
    `waits` adds it to those.
    """
    return next((name for name, form in KINDS.items() if re.fullmatch(form, function)), None)


@dataclass
class Calls:
    """The calls of a stretch of a program, by function."""

    made: Counter[str] = field(default_factory=Counter[str])
    captured: Counter[str] = field(default_factory=Counter[str])

    def by_kind(self) -> Counter[str]:
        """The calls of each kind that the program made."""
        return grouped(self.made)

    def captured_by_kind(self) -> Counter[str]:
        """What went into CUDA graphs instead of being done."""
        return grouped(self.captured)

    def waits(self) -> int:
        """How often the program waited for the device: synchronisations and blocking copies."""
        blocking = sum(n for name, n in self.made.items() if name.startswith("cudaMemcpy "))
        return self.by_kind()["wait"] + blocking

    def __str__(self) -> str:
        """One line, such as `graph 1, download 1, wait 1`."""
        return ", ".join(f"{name} {n}" for name, n in self.by_kind().items()) or "none"


def grouped(calls: Counter[str]) -> Counter[str]:
    found: Counter[str] = Counter()
    for function, number in calls.items():
        if number and (name := kind(function)):
            found[name] += number
    return found


def runtime() -> ctypes.CDLL:
    """The fake libcudart; an error says that the process has the real one or none."""
    library = ctypes.CDLL("libcudart.so.13")
    library.fake_cuda_read.restype = ctypes.c_char_p
    return library


def read() -> Calls:
    """All calls since the start or the last reset."""
    library, calls = runtime(), Calls()
    made, captured, number = ctypes.c_long(), ctypes.c_long(), 0
    while name := library.fake_cuda_read(number, ctypes.byref(made), ctypes.byref(captured)):
        calls.made[name.decode()] = made.value
        calls.captured[name.decode()] = captured.value
        number += 1
    return calls


def reset() -> None:
    """All counters to 0, and the peak of the device memory to what is in use now."""
    runtime().fake_cuda_reset()
    runtime().fake_cuda_reset_peak()


@contextmanager
def counted() -> Iterator[Calls]:
    """Count the calls inside a `with`; the object is filled in when it ends."""
    reset()
    calls = Calls()
    yield calls
    found = read()
    calls.made, calls.captured = found.made, found.captured


def device_memory() -> tuple[int, int]:
    """Bytes of device memory in use now, and the most since the last reset."""
    now, peak = ctypes.c_long(), ctypes.c_long()
    runtime().fake_cuda_memory(ctypes.byref(now), ctypes.byref(peak))
    return now.value, peak.value
