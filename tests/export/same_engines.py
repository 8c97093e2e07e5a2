"""Whether two engines are the same."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx_ir as ir
import onnxruntime

from synfer_rt.export.onnx.shared_weights import tensor_array


def initializers(path: Path) -> Iterator[tuple[str, bytes]]:
    for name, value in ir.load(path).graph.initializers.items():
        assert value.const_value is not None
        yield name, tensor_array(value.const_value).tobytes()


def same_outputs(one: Path, other: Path) -> bool:
    """Whether two engines give the same bytes for the same random inputs."""
    sessions = [
        onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
        for path in (one, other)
    ]
    draw = np.random.default_rng(0)
    given = []
    for entry in sessions[0].get_inputs():
        shape = [3 if isinstance(size, str) else size for size in entry.shape]
        ids = entry.type == "tensor(int64)"
        given.append(draw.integers(0, 9, shape) if ids else np.array(draw.random(shape, "f4")))
    results = [
        session.run(None, dict(zip([e.name for e in session.get_inputs()], given, strict=True)))
        for session in sessions
    ]
    return all(
        np.asarray(a).tobytes() == np.asarray(b).tobytes() for a, b in zip(*results, strict=True)
    )
