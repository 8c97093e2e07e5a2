"""A loaded engine: the protocol that every runtime fulfils, and what the runtimes share."""

from __future__ import annotations

import threading
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from typing import Any, Protocol, cast, runtime_checkable

import numpy as np

from synfer_rt.bundle import EngineSpec
from synfer_rt.errors import UserError

Value = Any
"""A numpy array, or a runtime's own handle of a tensor on its device."""
ONE_AT_A_TIME = threading.RLock()
"""Held by the thread that uses bound engines.

Their buffers hold one piece at a time, ONNX Runtime forbids a session with CUDA graphs two calls at
once, and a CUDA graph cannot be captured beside another thread's copies and allocations.
"""


class Engine(Protocol):
    """A loaded engine."""

    spec: EngineSpec
    backend: str

    def run(self, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Outputs by name, in host memory. Extra inputs are ignored."""
        ...

    def run_on_device(self, inputs: Mapping[str, Value]) -> dict[str, Value]:
        """Outputs by name, left on the device that computed them.

        They can be inputs of any engine of the same backend; `to_numpy` copies them to the host.
        """
        ...


class Buffer(Protocol):
    """A tensor at a fixed address on a backend's device."""

    shape: tuple[int, ...]
    dtype: np.dtype

    def fill(self, array: np.ndarray) -> None:
        """Copy an array of the same shape and type to the device."""
        ...

    def numpy(self) -> np.ndarray:
        """A copy in host memory, made after the work that was enqueued before."""
        ...

    def rows(self, first: int, count: int) -> Buffer:
        """`count` rows of the first dimension, at the same addresses."""
        ...


@runtime_checkable
class BoundEngine(Engine, Protocol):
    """An engine that also runs from buffers to buffers, without copies and without waiting.

    It has the inputs and outputs of a CUDA engine (bundle/cuda.py). What bound engines of one
    backend enqueue happens in that order.
    """

    def allocate(self, shape: tuple[int, ...], dtype: str) -> Buffer:
        """A new buffer on the engine's device; its values are undefined."""
        ...

    def enqueue(
        self, inputs: Mapping[str, Buffer], outputs: Mapping[str, Buffer], *, wait: bool = False
    ) -> None:
        """Run from `inputs` to `outputs`, of which none may be an input; extra inputs are ignored.

        With `wait` this returns when all that was enqueued is done.
        """
        ...


def to_numpy(value: Value) -> np.ndarray:
    """A value of `Engine.run_on_device` as a numpy array."""
    return cast(np.ndarray, value) if isinstance(value, np.ndarray) else value.numpy()


@contextmanager
def engine_failures(engine: str, backend: str) -> Generator[None]:
    """Turn an exception of a running engine, which nearly always means memory, into a UserError."""
    try:
        yield
    except Exception as error:  # the runtimes' exceptions share no base class but this
        raise UserError(
            f"{engine} failed on {backend} ({first_line(error)}); if memory ran out, write a "
            "smaller `batch`."
        ) from error


def first_line(error: Exception | str) -> str:
    """An exception's message as the middle of a sentence."""
    return str(error).strip().split("\n")[0].rstrip(".")
