"""What an NVIDIA GPU does while something runs: how busy it is, its memory, power and energy.

NVML says it, through the package nvidia-ml-py where that is installed, else through nvidia-smi.
What a GPU does not tell is None.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import threading
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from importlib import import_module
from typing import Any, Protocol

_LOOKS_BACK = 1.0
"""Seconds, at most, over which the driver averages utilisation: nvmlUtilization_t in NVML's
reference."""
_QUERY = "--query-gpu=utilization.gpu,memory.used,power.draw"


@dataclass(frozen=True)
class Reading:
    """One reading: `busy` is the share of the last moment in which a kernel ran, from 0 to 1.

    `memory_bytes` is what all processes use of the card together.
    """

    busy: float | None
    memory_bytes: int | None
    watts: float | None


@dataclass(frozen=True)
class Usage:
    """What a GPU did over `seconds`; `joules` is all its energy, not only of this process.

    `busy` and `watts` are means, `memory_bytes` is the most that all processes used. `source` says
    who told.
    """

    seconds: float
    busy: float | None
    memory_bytes: int | None
    watts: float | None
    joules: float | None
    source: str


class Meter(Protocol):
    """What can be asked for readings, every `interval` seconds without disturbing the work."""

    source: str
    interval: float

    def read(self) -> Reading:
        """What the GPU does now."""
        ...

    def joules(self) -> float | None:
        """The energy used since a fixed moment; None if the GPU does not count it."""
        ...


class Nvml:
    """NVML through nvidia-ml-py, whose module is `nvml` (`pynvml`).

    Raises the module's NVMLError where there is no driver or no such GPU.
    """

    interval = 0.1
    source = "NVML"

    def __init__(self, nvml: Any, gpu: str) -> None:
        self._nvml = nvml
        nvml.nvmlInit()
        if gpu.isdecimal():
            self._gpu = nvml.nvmlDeviceGetHandleByIndex(int(gpu))
        else:
            self._gpu = nvml.nvmlDeviceGetHandleByUUID(gpu.encode())

    def read(self) -> Reading:
        """What the GPU does now."""
        nvml, gpu = self._nvml, self._gpu
        busy = self._told(lambda: nvml.nvmlDeviceGetUtilizationRates(gpu).gpu)
        memory = self._told(lambda: nvml.nvmlDeviceGetMemoryInfo(gpu).used)
        milliwatts = self._told(lambda: nvml.nvmlDeviceGetPowerUsage(gpu))
        return Reading(
            None if busy is None else busy / 100,
            memory,
            None if milliwatts is None else milliwatts / 1000,
        )

    def joules(self) -> float | None:
        """The energy used since the driver was loaded; cards before Volta do not count it."""
        millijoules = self._told(lambda: self._nvml.nvmlDeviceGetTotalEnergyConsumption(self._gpu))
        return None if millijoules is None else millijoules / 1000

    def _told(self, ask: Callable[[], Any]) -> Any:
        try:
            return ask()
        except self._nvml.NVMLError:  # such as Not Supported, on a part of a GPU (MIG)
            return None


class NvidiaSmi:
    """The program nvidia-smi, which comes with the driver; each reading starts a process."""

    interval = 0.5
    source = "nvidia-smi"

    def __init__(self, gpu: str) -> None:
        self._gpu = gpu

    def read(self) -> Reading:
        """What the GPU does now; nothing is known if the program fails."""
        rows = nvidia_smi("-i", self._gpu, _QUERY, "--format=csv,noheader,nounits")
        if len(rows) != 1:
            return Reading(None, None, None)
        busy, mebibytes, watts = map(_number, rows[0].split(","))
        return Reading(
            None if busy is None else busy / 100,
            None if mebibytes is None else int(mebibytes) * 2**20,
            watts,
        )

    def joules(self) -> float | None:
        """None: the energy follows from the power."""
        return None


def open_meter() -> Meter | None:
    """The meter of the GPU that CUDA uses first; None where no NVIDIA GPU can be asked.

    CUDA_VISIBLE_DEVICES is read as CUDA reads it, but with the driver's order of the cards.
    """
    gpu = os.environ.get("CUDA_VISIBLE_DEVICES", "0").split(",")[0].strip()
    if gpu in ("", "-1"):
        return None
    try:
        nvml: Any = import_module("pynvml")
    except ImportError:
        meter: Meter = NvidiaSmi(gpu)
        return None if meter.read().memory_bytes is None else meter
    try:
        return Nvml(nvml, gpu)
    except nvml.NVMLError:
        return None


def nvidia_smi(*arguments: str) -> list[str]:
    """The lines that nvidia-smi prints; none if it is missing or fails."""
    command = ["nvidia-smi", *arguments]
    try:
        result = subprocess.run(command, capture_output=True, text=True, timeout=30)
    except (OSError, subprocess.TimeoutExpired):
        return []
    return result.stdout.splitlines() if result.returncode == 0 else []


def _number(text: str) -> float | None:
    """A value of nvidia-smi, which writes [N/A] or [Not Supported] for what it does not know."""
    try:
        return float(text)
    except ValueError:
        return None


class Watch(AbstractContextManager["Watch"]):
    """Reads a meter on a thread of its own while the block runs; then `usage` tells of that time.

    Without a meter there is nothing to tell.
    """

    def __init__(self, meter: Meter | None) -> None:
        self._meter = meter
        self._readings: list[tuple[float, Reading]] = []
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._read, name="gpu-monitor", daemon=True)
        self._began = self._seconds = 0.0
        self._counted: tuple[float | None, float | None] = (None, None)

    def __enter__(self) -> Watch:
        if self._meter is not None:
            self._counted = (self._meter.joules(), None)
            self._began = time.monotonic()
            self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._meter is not None:
            self._seconds = time.monotonic() - self._began
            self._counted = (self._counted[0], self._meter.joules())
            self._ended.set()
            self._thread.join()

    def usage(self) -> Usage | None:
        """What the GPU did in the block."""
        if self._meter is None:
            return None
        # The first readings tell of the time before the block, too.
        late = [reading for moment, reading in self._readings if moment >= _LOOKS_BACK]
        settled = late or [reading for _, reading in self._readings]
        watts = _mean([reading.watts for reading in settled])
        before, after = self._counted
        if before is not None and after is not None:
            joules = after - before
        else:
            joules = None if watts is None else watts * self._seconds
        memory = [r.memory_bytes for _, r in self._readings if r.memory_bytes is not None]
        return Usage(
            self._seconds,
            _mean([reading.busy for reading in settled]),
            max(memory, default=None),
            watts,
            joules,
            self._meter.source,
        )

    def _read(self) -> None:
        assert self._meter is not None
        while True:
            self._readings.append((time.monotonic() - self._began, self._meter.read()))
            if self._ended.wait(self._meter.interval):
                return


def _mean(values: list[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return statistics.fmean(known) if known else None
