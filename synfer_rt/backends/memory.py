"""Free memory, which limits the number of images that are decoded at once."""

from __future__ import annotations

from pathlib import Path

_GROUP = Path("/sys/fs/cgroup")


def free_memory(backend: str) -> int | None:
    """The free bytes on a backend's device; None if unknown."""
    if backend.endswith("-cpu"):
        found = [size for size in (_machine(), _container()) if size is not None]
        return min(found, default=None)
    from synfer_rt.backends import cuda

    return None if cuda.problem() else cuda.device().free_memory()


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
