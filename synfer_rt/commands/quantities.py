"""Times and sizes in words."""

from __future__ import annotations

_TIMES = (("days", 86_400), ("h", 3600), ("min", 60))
_SIZES = ("bytes", "kB", "MB", "GB", "TB", "PB")


def duration(seconds: float) -> str:
    """A time of 0 or more in the largest unit of which it has two: 0.3 s, 25 min, 3.2 days."""
    for unit, length in _TIMES:
        if seconds >= 2 * length:
            return f"{_digits(seconds / length)} {unit}"
    return f"{round(seconds, 2):.2g} s" if seconds < 9.5 else f"{seconds:.0f} s"


def size(count: float) -> str:
    """So many bytes, 0 or more, in a decimal unit: 512 bytes, 12.3 kB, 1.5 GB."""
    for unit in _SIZES[:-1]:
        if count < 999.5:
            return f"{_digits(count)} {unit}"
        count /= 1000
    return f"{_digits(count)} {_SIZES[-1]}"


def _digits(number: float) -> str:
    """Three digits, or all those before the point."""
    return f"{number:.3g}" if number < 999.5 else f"{number:.0f}"
