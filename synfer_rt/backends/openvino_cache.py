"""Compiled models of OpenVINO in the user's cache, which open without their ONNX file.

OpenVINO's own cache (CACHE_DIR, seen in 2026.4) finds a model by hashing it. So the ONNX file is
read first, and hashing sets the locale of the whole process, for which engines would have to open
one after another. A model that was exported is found by its name, and several open at once.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import Any

import numpy as np

from synfer_rt.backends.memory import free_memory

_REVISION = 1
"""Of what is done to a model between its file and its compilation."""
_MARGIN = 3
"""The free memory that an export needs, in sizes of the engine's files: it is whole in memory."""


class CompiledModels:
    """The compiled models of one engine's `file` in `folder`; None keeps nothing.

    `folder` is of one bundle (`caches.cache_directory`). Models that are found share the memory of
    their files, which must be there as long as the models: keep this object beside them.
    """

    def __init__(self, folder: Path | None, file: Path, core: Any) -> None:
        self._folder, self._source, self._core = folder, file, core
        self._mapped: list[np.memmap[Any, Any]] = []

    @property
    def known(self) -> bool:
        """Whether any model of the engine is kept."""
        return self._folder is not None and any(self._folder.glob(f"{self._source.stem}-*.blob"))

    def find(
        self, shapes: Mapping[str, Sequence[int]], properties: Mapping[str, Any]
    ) -> Any | None:
        """The model that was compiled for these shapes of the inputs; None if it is not there."""
        import openvino

        file = self._file(shapes, properties)
        if file is None or not file.exists():
            return None
        try:
            mapped = np.memmap(file, np.uint8, "c")  # OpenVINO takes no memory that is read-only
            tensor = openvino.Tensor(mapped, shared_memory=True)
            model = self._core.import_model(tensor, "CPU", dict(properties))
        except Exception:  # a damaged file, of which the runtime's exceptions share no base class
            return None
        self._mapped.append(mapped)
        return model

    def keep(
        self, model: Any, shapes: Mapping[str, Sequence[int]], properties: Mapping[str, Any]
    ) -> None:
        """Keep a compiled model, if there are memory and disk for it."""
        file = self._file(shapes, properties)
        if file is None:
            return
        try:
            source = self._source
            size = sum(path.stat().st_size for path in [source, *source.parent.glob("*.data")])
            free = free_memory("openvino-cpu")
            if free is None or free >= _MARGIN * size:
                _write(file, model.export_model().getbuffer())
        except (MemoryError, OSError, RuntimeError):  # it is compiled again the next time
            return

    def _file(
        self, shapes: Mapping[str, Sequence[int]], properties: Mapping[str, Any]
    ) -> Path | None:
        """Where the model is kept: the name has all that decides what was compiled."""
        import openvino

        if self._folder is None:
            return None
        cpu = [
            str(self._core.get_property("CPU", name))
            for name in ("FULL_DEVICE_NAME", "OPTIMIZATION_CAPABILITIES")
        ]
        key = [_REVISION, openvino.__version__, *cpu, list(shapes.items()), dict(properties)]
        digest = hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()
        return self._folder / f"{self._source.stem}-{digest[:32]}.blob"


def _write(file: Path, data: memoryview) -> None:
    """Write a file whole or not at all. Raises OSError."""
    with NamedTemporaryFile(dir=file.parent, suffix=".partial", delete=False) as partial:
        try:
            partial.write(data)
            partial.flush()
            os.fsync(partial.fileno())
            partial.close()
            os.replace(partial.name, file)
        except OSError:
            os.unlink(partial.name)
            raise
