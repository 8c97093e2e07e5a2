"""The most memory that this process had resident since a moment, as the system counts it."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path


def reset_peak() -> None:
    """Count from now on."""
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")  # proc(5): resets VmHWM


def peak_bytes() -> int | None:
    """The largest resident set since reset_peak, files mapped into memory included.

    None where the system does not tell.
    """
    with suppress(OSError):
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    return None
