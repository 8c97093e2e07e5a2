"""A loaded engine: the protocol that every runtime fulfils, and what the runtimes share."""

from __future__ import annotations

from collections.abc import Generator, Mapping
from contextlib import contextmanager
from typing import Any, Protocol, cast

import numpy as np

from synfer_rt.bundle import EngineSpec
from synfer_rt.errors import UserError

Value = Any
"""A numpy array, or a runtime's own handle of a tensor on its device."""


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
