"""Whether a graph of a pipeline computes what its network computes in PyTorch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch

from synfer_rt.errors import UserError
from synfer_rt.export.onnx_pipeline.networks import PipelineGraph
from synfer_rt.export.sentences import first_line, some

TOLERANCES = {"float32": 1e-3, "float16": 5e-2}
"""The largest error relative to the largest output, by the type in which a graph computes."""
_TYPES = {
    "tensor(float)": np.float32,
    "tensor(float16)": np.float16,
    "tensor(int64)": np.int64,
    "tensor(int32)": np.int32,
}


def check_graph(path: Path, graph: PipelineGraph) -> None:
    """Compare the ONNX file with the network on the graph's example, by ONNX Runtime.

    Only the first output of the network is compared: others are not read. Raises UserError for a
    file with other inputs or outputs, one that does not run, and a difference above the tolerance.
    """
    import onnxruntime

    try:
        session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    except Exception as error:  # its errors have no base class
        raise UserError(
            f"ONNX Runtime cannot open {path} ({first_line(error)}); export or fetch it again."
        ) from error
    outputs = [output.name for output in session.get_outputs()]
    unknown = [one.name for one in session.get_inputs() if one.name not in graph.inputs]
    if unknown or graph.outputs[0] not in outputs:
        raise UserError(
            f"{path} takes {some([x.name for x in session.get_inputs()], 5)} and gives "
            f"{some(outputs, 3)}, not {', '.join(graph.inputs)} and {graph.outputs[0]}; export the "
            "pipeline anew with `optimum-cli export onnx`."
        )
    rows = _rows(session, len(next(iter(graph.inputs.values()))))
    inputs = {name: x[:rows] if x.ndim else x for name, x in graph.inputs.items()}
    given = {one.name: _as_input(one, inputs[one.name].numpy()) for one in session.get_inputs()}
    try:
        found = np.asarray(session.run([graph.outputs[0]], given)[0])
    except Exception as error:
        raise UserError(
            f"{path} cannot be run at the size that its {path.parent.name}/config.json names "
            f"({first_line(error)}); export the pipeline anew."
        ) from error
    with torch.no_grad():
        result = graph.module(*inputs.values())
    wanted = (result[0] if isinstance(result, tuple) else result).numpy()
    _check_close(path, found, wanted)


def _rows(session: Any, rows: int) -> int:
    """The batch of the first input, which a graph may fix."""
    batch = session.get_inputs()[0].shape[0]
    return min(batch, rows) if isinstance(batch, int) else rows


def _as_input(one: Any, array: np.ndarray) -> np.ndarray:
    """An example as an input takes it; older exports want a timestep in a vector."""
    if array.ndim == 0 and one.shape:
        array = array.reshape(1)
    return array.astype(_TYPES.get(one.type, array.dtype))


def _check_close(path: Path, found: np.ndarray, wanted: np.ndarray) -> None:
    kind = "float16" if found.dtype == np.float16 else "float32"
    error = float("inf")
    if found.shape == wanted.shape:
        scale = float(np.abs(wanted).max()) or 1.0
        error = float(np.abs(found.astype(np.float32) - wanted).max()) / scale
    if not error <= TOLERANCES[kind]:
        raise UserError(
            f"{path} computes something else than the network of its config.json with its weights "
            f"(a difference of {error:.1e} of the largest value); give it the config.json that it "
            "was exported with, or export the pipeline anew."
        )
