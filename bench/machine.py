"""The machine that a measurement was made on."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterable
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

from synfer_rt.backends import default_threads
from synfer_rt.backends.driver import gpu
from synfer_rt.bench.gpu_monitor import nvidia_smi


def describe(threads: int, packages: Iterable[str]) -> dict[str, Any]:
    """The machine, the date and the versions of those `packages` that are installed.

    Keys: cpu (model), cores (logical ones that this process may use), threads (used by each
    engine), ram_bytes, gpus (list of name, memory and driver; empty without NVIDIA's driver),
    system, python, versions, date (UTC, ISO 8601).
    """
    return {
        "cpu": cpu_model(),
        "cores": default_threads(),
        "threads": threads,
        "ram_bytes": _ram_bytes(),
        "gpus": _gpus(),
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "python": platform.python_version(),
        "versions": dict(_versions(packages)),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def _gpus() -> list[str]:
    """As nvidia-smi lists them; without that program, the first as the driver names it."""
    rows = nvidia_smi("--query-gpu=name,memory.total,driver_version", "--format=csv,noheader")
    first = gpu()
    return rows or ([f"{first.name}, {first.capability}, CUDA {first.cuda}"] if first else [])


def peak_rss_bytes() -> int | None:
    """The largest resident set of this process so far; None where the system does not tell."""
    try:
        # Not getrusage: after an exec its maximum still includes the parent's.
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    except OSError:
        pass
    try:
        import resource
    except ImportError:
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if platform.system() == "Darwin" else peak * 1024


def cpu_model() -> str:
    """The name of the CPU."""
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def _ram_bytes() -> int | None:
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):  # Windows has no sysconf
        return None


def _versions(packages: Iterable[str]) -> Iterable[tuple[str, str]]:
    for name in packages:
        try:
            yield name, metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
