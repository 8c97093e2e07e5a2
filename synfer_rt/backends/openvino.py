"""OpenVINO on the CPU, from a bundle's ONNX files."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from synfer_rt.backends import (
    BackendStatus,
    Value,
    cache_directory,
    engine_failures,
    first_line,
)
from synfer_rt.bundle import Bundle
from synfer_rt.errors import UserError

NAME = "openvino-cpu"
_MOST_SHAPES = 2
"""For how many shapes of its inputs an engine stays compiled; each holds weights of its own."""


class OpenVinoEngine:
    """One ONNX file, compiled for each shape of its inputs. See `synfer_rt.backends.Engine`.

    A fixed size costs a compilation, and makes the denoiser faster than ONNX Runtime, where a
    dynamic one is slower. What is compiled is kept on the disk.

    The denoiser, where nearly all time goes, computes in bfloat16 on a CPU that can, but not the
    solver: its coefficients are large and cancel each other, more than eight bits can hold. That
    step is taken outside the graph, in float32 everywhere.
    """

    def __init__(self, bundle: Bundle, name: str, threads: int) -> None:
        import openvino

        self.spec = bundle.engines[name]
        self.backend = NAME
        self._core = openvino.Core()
        self.precision = "bf16" if name == "denoiser" and has_bfloat16(self._core) else "f32"
        self._properties: dict[str, Any] = {
            "INFERENCE_PRECISION_HINT": self.precision,
            "INFERENCE_NUM_THREADS": threads,
            "NUM_STREAMS": 1,
            "ENABLE_CPU_PINNING": False,  # runs side by side would be pinned to the same cores
        }
        if cache := cache_directory("openvino", bundle):
            self._properties["CACHE_DIR"] = str(cache)
        file = bundle.path / self.spec.file
        try:
            self._model = read_model(file, self._core)
        except Exception as error:  # the runtime's exceptions share no base class but this
            raise UserError(
                f"{file} cannot be loaded by {NAME} ({first_line(error)}); build the bundle again "
                "with `synfer-rt build-engines`."
            ) from None
        self._steps_outside = name == "denoiser"
        if self._steps_outside:
            for output in self._model.outputs:
                if output.any_name != "prediction":
                    self._model.remove_result(output.get_node())
        self._requests: dict[tuple[tuple[int, ...], ...], Any] = {}

    def run(self, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Outputs by name."""
        given = {tensor.name: np.asarray(inputs[tensor.name]) for tensor in self.spec.inputs}
        with engine_failures(self.spec.name, NAME):
            request = self._request(
                {
                    tensor.name: [
                        length if isinstance(size, str) else size
                        for size, length in zip(tensor.shape, given[tensor.name].shape, strict=True)
                    ]
                    for tensor in self.spec.inputs
                }
            )
            results = request.infer(given, share_inputs=True)
            outputs = {port.any_name: results[port] for port in request.model_outputs}
        return _solver_step(given, outputs["prediction"]) if self._steps_outside else outputs

    def run_on_device(self, inputs: Mapping[str, Value]) -> dict[str, Value]:
        """The same: the device's memory is the host's."""
        return self.run(inputs)

    def _request(self, shapes: Mapping[str, list[int]]) -> Any:
        """The engine compiled for inputs of `shapes`; those used last are kept."""
        key = tuple(map(tuple, shapes.values()))
        request = self._requests.pop(key, None)
        if request is None:
            if len(self._requests) == _MOST_SHAPES:
                del self._requests[next(iter(self._requests))]
            model = self._model.clone()
            model.reshape(dict(shapes))
            compiled = self._core.compile_model(model, "CPU", self._properties)
            request = compiled.create_infer_request()
        self._requests[key] = request
        return request


def has_bfloat16(core: Any) -> bool:
    """Whether this CPU multiplies bfloat16."""
    return "BF16" in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES")


def read_model(file: Path, core: Any) -> Any:
    """An ONNX file as OpenVINO's model, without what it would compute wrongly.

    Where a convolution and a transposed one share their weights, as in a gradient's graph, OpenVINO
    (seen in 2026.4) prepares them for the first and gives them to both: so the second gets a copy.
    """
    from openvino import op

    model = core.read_model(file)
    for node in model.get_ops():
        if node.get_type_name() == "ConvolutionBackpropData":
            weights = node.input_value(1).get_node()
            if weights.get_type_name() == "Convert":  # stored as float16
                weights = weights.input_value(0).get_node()
            if weights.get_type_name() == "Constant":
                copy = op.Constant(weights.data.astype(np.float32), shared_memory=False)
                node.input(1).replace_source_output(copy.output(0))
    return model


def _solver_step(inputs: Mapping[str, np.ndarray], prediction: np.ndarray) -> dict[str, np.ndarray]:
    """`coefficients @ [latents, prediction, history]`: the next latents and the next history."""
    latents = inputs["latents"]
    stack = np.concatenate([latents[:, None], prediction[:, None], inputs["history"]], 1)
    with np.errstate(over="ignore", invalid="ignore"):  # the sampler looks for broken images
        rows = inputs["coefficients"] @ stack.reshape(*stack.shape[:2], -1)
    rows = rows.reshape(*rows.shape[:2], *latents.shape[1:])
    return {"next_latents": rows[:, 0], "next_history": rows[:, 1:], "prediction": prediction}


def open_engine(bundle: Bundle, name: str, backend: str, threads: int) -> OpenVinoEngine:
    """See `synfer_rt.backends.open_engine`."""
    return OpenVinoEngine(bundle, name, threads)


def status(backend: str) -> BackendStatus:
    """Whether OpenVINO is there and finds the CPU."""
    remedy = "run `pip install --force-reinstall openvino`"
    try:
        import openvino

        devices = openvino.Core().available_devices
    except ModuleNotFoundError:
        remedy = "run `pip install openvino`"
        return BackendStatus(backend, False, "openvino is not installed", remedy)
    except Exception as error:  # the runtime's exceptions share no base class but this
        return BackendStatus(backend, False, first_line(error), remedy)
    if "CPU" not in devices:
        return BackendStatus(backend, False, "OpenVINO does not know this CPU", remedy)
    return BackendStatus(backend, True, "works", "")
