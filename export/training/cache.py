"""Long computations over numbered rows, kept on disk piece by piece, so that they resume."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from synfer_rt.data.writers.atomic import write_beside_others
from synfer_rt.errors import UserError
from synfer_rt.export.training.stages import Stage, shown

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
    stage: Stage = shown,
) -> dict[str, np.ndarray]:
    """Results of `compute` for rows 0 to `count` - 1: arrays [count, ...] by name, memory-mapped.

    `compute` takes consecutive row numbers int64 [n], at most `at_once`, and returns arrays
    [n, ...] whose names, types and further dimensions never change. `folder` keeps them and the
    number of rows that are done; name it by a `key` of everything that decides the values. Several
    processes may compute the same rows at once. Raises UserError where they cannot be written, on a
    full disk for example; the rows before are kept.
    """
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
    finished = done(folder)
    with stage(title, count, min(finished, count)) as report:
        for begin in range(finished, count, at_once):
            numbers = np.arange(begin, min(begin + at_once, count))
            found = compute(numbers)
            with writing(folder):
                for name, values in found.items():
                    _put(folder / f"{name}.npy", begin, count, values)
                write_beside_others(folder / _DONE, str(begin + len(numbers)).encode(), folder)
            report(begin + len(numbers))
    # A copy in memory of what somebody changes: no mistake reaches the disk.
    return {file.stem: np.load(file, mmap_mode="c") for file in sorted(folder.glob("*.npy"))}


def done(folder: Path) -> int:
    """How many rows are finished in `folder`."""
    note = folder / _DONE
    return int(note.read_text()) if note.exists() else 0


def check_room(folder: Path, count: int, finished: int, row: int, what: str) -> str:
    """A sentence on the disk that `count` rows of `row` bytes take in `folder`.

    Raises UserError if those that are not `finished` yet do not fit.
    """
    parent = next(path for path in (folder.absolute(), *folder.absolute().parents) if path.exists())
    free, need = shutil.disk_usage(parent).free, max(count - finished, 0) * row
    said = f"{what} take {_bytes(count * row)} in {folder}"
    if need > free:
        raise UserError(
            f"{said}, of which {_bytes(need)} are to be written, but only {_bytes(free)} are free "
            "there; name another folder with `work`, or train on fewer `images`."
        )
    return f"{said}, where {_bytes(free)} are free."


def _bytes(count: int) -> str:
    return f"{count / 1e9:.2f} GB" if count >= 1e8 else f"{count / 1e6:.2f} MB"


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turn an OSError of the block into a UserError that says how to go on."""
    try:
        yield
    except OSError as error:
        raise UserError(
            f"{error.filename or path} cannot be written ({error.strerror or error}); make room or "
            "correct that, then run the same again: what is finished is kept."
        ) from error


def _put(file: Path, begin: int, count: int, values: np.ndarray) -> None:
    """Write `values` as the rows from `begin` on of a .npy file of `count` rows.

    The file grows by writes: on a full disk they raise an error, where a write to memory that maps
    the file would end the process. What is in it stays, for another process may have written it.
    """
    flags = os.O_RDWR | getattr(os, "O_BINARY", 0) | (0 if begin else os.O_CREAT)
    with os.fdopen(os.open(file, flags, 0o666), "r+b") as out:
        if begin:
            np.lib.format.read_magic(out)
            np.lib.format.read_array_header_1_0(out)
        else:
            shape = {"shape": (count, *values.shape[1:]), "fortran_order": False}
            descr = np.lib.format.dtype_to_descr(values.dtype)
            np.lib.format.write_array_header_1_0(out, {"descr": descr, **shape})
        row = values.nbytes // len(values)
        out.seek(out.tell() + begin * row)
        out.write(values.tobytes())
        out.flush()
        os.fsync(out.fileno())
