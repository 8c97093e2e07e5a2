"""A call on a CPU, its rows divided among streams that compute at once.

A stream has rows and threads of its own. Threads that share rows wait for each other after every
operator, and lose much where another process takes a core; streams wait for each other once a call.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from itertools import pairwise
from typing import TypeVar

import numpy as np

from synfer_rt.bundle.engine_specs import BATCH, TensorSpec

_POSITIONS = 1024
"""The most latent positions of an image whose call is divided. An operator on a larger image keeps
all threads busy, and two of them at once would take the memory of both."""
_BUSY = 0.8
"""The least part of their time in which streams compute something new."""
_MOST_THREADS = 1024

Arrays = Mapping[str, np.ndarray]
Result = TypeVar("Result")


def worthwhile(rows: int, count: int, positions: int) -> bool:
    """Whether `count` streams compute `rows` images, each of so many latent `positions`."""
    return positions <= _POSITIONS and rows >= _BUSY * count * _size(rows, count)


def most(rows: int, threads: int, positions: int) -> int:
    """The largest worthwhile number of streams, each with equally many of the `threads`.

    A stream has two rows or more, since products with a single row may be rounded differently.
    """
    counts = (n for n in range(min(threads, rows // 2), 1, -1) if threads % n == 0)
    return next((n for n in counts if worthwhile(rows, n, positions)), 1)


def rows_of(inputs: Arrays, tensors: Sequence[TensorSpec]) -> int:
    """The number of images in a call with these inputs; 1 if they do not agree."""
    found = {len(inputs[t.name]) for t in tensors if t.shape[:1] == (BATCH,)}
    return found.pop() if len(found) == 1 else 1


def parts(inputs: Arrays, tensors: Sequence[TensorSpec], count: int) -> list[Arrays]:
    """The inputs of each of `count` streams: its rows, as views, of those that have rows.

    All streams have equally many, so the last ones compute some rows that others do, too.
    """
    if count == 1:
        return [{t.name: inputs[t.name] for t in tensors}]
    return [
        {
            t.name: inputs[t.name][part] if t.shape[:1] == (BATCH,) else inputs[t.name]
            for t in tensors
        }
        for part in _slices(rows_of(inputs, tensors), count)
    ]


def joined(outputs: Sequence[Arrays], rows: int) -> dict[str, np.ndarray]:
    """The outputs of one call of `rows` images, copied from those of its streams."""
    if len(outputs) == 1:
        return {name: np.array(values) for name, values in outputs[0].items()}
    starts = [part.start for part in _slices(rows, len(outputs))]
    new = [end - start for start, end in pairwise([*starts, rows])]
    return {
        name: np.concatenate([part[name][:n] for part, n in zip(outputs, new, strict=True)])
        for name in outputs[0]
    }


def _slices(rows: int, count: int) -> list[slice]:
    size = _size(rows, count)
    starts = (min(i * size, rows - size) for i in range(count))
    return [slice(start, start + size) for start in starts]


def _size(rows: int, count: int) -> int:
    return -(-rows // count)


def at_once(calls: Sequence[Callable[[], Result]]) -> list[Result]:
    """The results of calls, each on a thread of its own."""
    if not calls:
        return []
    others = [_threads().submit(call) for call in calls[1:]]
    return [calls[0](), *(other.result() for other in others)]


@cache
def _threads() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(_MOST_THREADS, "stream")
