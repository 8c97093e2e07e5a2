"""Long computations over numbered rows, kept on disk piece by piece, so that they resume."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
from rich.progress import track

_DONE = "done"


def key(*facts: object) -> str:
    """A name for what was computed from these facts; equal facts must have the same `repr`."""
    return hashlib.sha256(repr(facts).encode()).hexdigest()[:12]


def digest(array: np.ndarray) -> str:
    """SHA-256 of an array's values, as a fact for `key`."""
    return hashlib.sha256(np.ascontiguousarray(array).data).hexdigest()


def rows(
    folder: Path,
    count: int,
    compute: Callable[[np.ndarray], Mapping[str, np.ndarray]],
    at_once: int = 64,
    title: str = "computing",
) -> dict[str, np.ndarray]:
    """Results of `compute` for rows 0 to `count` - 1: arrays [count, ...] by name, memory-mapped.

    `compute` takes consecutive row numbers int64 [n], at most `at_once`, and returns arrays
    [n, ...] whose names, types and further dimensions never change. `folder` keeps them and the
    number of rows that are done; name it by a `key` of everything that decides the values.
    """
    folder.mkdir(parents=True, exist_ok=True)
    note = folder / _DONE
    done = int(note.read_text()) if note.exists() else 0
    arrays = {file.stem: np.load(file, mmap_mode="r+") for file in folder.glob("*.npy") if done}
    for begin in track(range(done, count, at_once), title, disable=done == count):
        numbers = np.arange(begin, min(begin + at_once, count))
        for name, values in compute(numbers).items():
            if name not in arrays:
                arrays[name] = np.lib.format.open_memmap(
                    folder / f"{name}.npy", "w+", values.dtype, (count, *values.shape[1:])
                )
            arrays[name][numbers] = values
        note.write_text(str(numbers[-1] + 1))
    return arrays
