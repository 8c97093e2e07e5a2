"""An engine in ONNX Runtime on the CPU."""

from __future__ import annotations

import math
import threading
from collections.abc import Mapping
from functools import partial
from typing import Any

import numpy as np

from synfer_rt.backends import streams
from synfer_rt.backends.engine import Value, engine_failures, first_line, to_numpy
from synfer_rt.backends.sessions import open_session
from synfer_rt.bundle import Bundle
from synfer_rt.errors import UserError

NAME = "onnxruntime-cpu"


class OnnxRuntimeCpuEngine:
    """One ONNX file in sessions of different numbers of threads. See `backends.engine.Engine`.

    A call with rows for every thread runs in a session of one thread, as often at once as there
    are threads (streams.py); another in a session of all threads. A row's values are the same
    either way. The session for calls of `rows`, by default of one, is
    opened now, the other when it is needed.
    """

    def __init__(self, bundle: Bundle, name: str, threads: int, rows: int | None) -> None:
        self.spec = bundle.engines[name]
        self.backend = NAME
        self._file = bundle.path / self.spec.file
        self._threads = threads
        self._positions = math.prod(bundle.latent.shape[1:])
        self._sessions: dict[int, Any] = {}
        self._opening = threading.Lock()
        self._session(self._streams(rows or 1))

    def run(self, inputs: Mapping[str, Value]) -> dict[str, np.ndarray]:
        """Outputs by name."""
        given = {t.name: np.asarray(to_numpy(inputs[t.name])) for t in self.spec.inputs}
        rows = streams.rows_of(given, self.spec.inputs)
        count = self._streams(rows)
        session = self._session(count)
        names = [tensor.name for tensor in self.spec.outputs]
        parts = streams.parts(given, self.spec.inputs, count)
        with engine_failures(self.spec.name, NAME):
            values = streams.at_once([partial(session.run, names, part) for part in parts])
        return streams.joined([dict(zip(names, part, strict=True)) for part in values], rows)

    def run_on_device(self, inputs: Mapping[str, Value]) -> dict[str, Value]:
        """The same: the device's memory is the host's."""
        return self.run(inputs)

    def _streams(self, rows: int) -> int:
        alone = streams.worthwhile(rows, self._threads, self._positions)
        return self._threads if alone else 1

    def _session(self, count: int) -> Any:
        """The session for calls in `count` streams. Raises UserError for a file that is refused."""
        threads = self._threads // count
        with self._opening:
            if threads not in self._sessions:
                try:
                    self._sessions[threads] = open_session(self._file, NAME, threads)
                except Exception as error:  # the runtime's exceptions share no base class but this
                    raise UserError(
                        f"{self._file} cannot be loaded by {NAME} ({first_line(error)}); build the "
                        "bundle again with `synfer-rt build-engines`."
                    ) from None
            return self._sessions[threads]
