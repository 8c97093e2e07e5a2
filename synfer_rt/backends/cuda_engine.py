"""CUDA engines in ONNX Runtime: buffers at fixed addresses, and calls replayed as CUDA graphs."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from typing import Any, cast

import numpy as np

from synfer_rt.backends.engine import (
    ONE_AT_A_TIME,
    Buffer,
    Value,
    engine_failures,
    first_line,
    to_numpy,
)
from synfer_rt.backends.placement import Placement, nodes_by_provider
from synfer_rt.backends.sessions import (
    buffer_options,
    cuda_engine_options,
    library,
    open_session,
)
from synfer_rt.bundle import Bundle
from synfer_rt.bundle.cuda import STEP, TABLES
from synfer_rt.bundle.engine_specs import IMAGE_AXES, LATENT_AXES
from synfer_rt.errors import UserError

LOG = logging.getLogger(__name__)
_NO_GRAPH = "-1"
"""The `gpu_graph_id` of a call that is neither captured nor replayed."""


class CudaEngine:
    """An engine on buffers, in an inference session. See `backends.engine.BoundEngine`.

    It runs the bundle's CUDA engine. Without one it runs the ONNX engine, which must have the same
    interface (`keeps_interface`), and no CUDA graphs, which might not hold all of its operators.

    A call from the same buffers to the same buffers as before replays a CUDA graph, which was
    captured at the first such call: a graph holds shapes and addresses, so each set of buffers has
    one of its own. An engine that cannot be captured runs its kernels one by one. `run` and
    `run_on_device` take the inputs and give the outputs of the ONNX engine.

    `device` is ONNX Runtime's name of the device, "cuda"; tests that have no GPU run on "cpu".
    """

    def __init__(self, bundle: Bundle, name: str, backend: str, threads: int, device: str) -> None:
        self.spec = bundle.engines[name]
        self.backend = backend
        self._cuda = bundle.cuda.get(name, self.spec)
        self._latent, self._image = bundle.latent.shape[1:], bundle.image_size
        self._file = bundle.path / self._cuda.file
        self._threads, self._device = threads, device
        self._calls: dict[tuple[int, ...], _Call] = {}
        try:
            self._graphs = device == "cuda" and name in bundle.cuda
            self._session = self._open()
        except Exception as error:  # the runtime's exceptions share no base class but this
            raise UserError(
                f"{self._file} cannot be loaded by {backend} ({first_line(error)}); build the "
                "bundle again with `synfer-rt build-engines --target cuda`."
            ) from None

    def placement(self) -> Placement:
        """See `Placed.placement`."""
        nodes = {} if self._device == "cpu" else nodes_by_provider(self._session)
        return Placement(self.backend, self._cuda.file, nodes)

    def run(self, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Outputs by name, in host memory."""
        given = self._in_tables(inputs)
        names = [tensor.name for tensor in self.spec.outputs]
        with ONE_AT_A_TIME, engine_failures(self.spec.name, self.backend):
            values = self._session.run(names, given, _run_options(_NO_GRAPH))
        return dict(zip(names, values, strict=True))

    def run_on_device(self, inputs: Mapping[str, Value]) -> dict[str, Value]:
        """Outputs by name, as OrtValues in the memory of the engine's device.

        Their memory is not the session's, in which the next CUDA graph writes what it wrote when it
        was captured.
        """
        ort_value, given = library().OrtValue, self._in_tables(inputs)
        lengths = self._lengths(given)
        binding = self._session.io_binding()
        outputs: dict[str, Value] = {}
        with ONE_AT_A_TIME, engine_failures(self.spec.name, self.backend):
            for name, value in given.items():
                if isinstance(value, np.ndarray):
                    value = _on_device(cast(np.ndarray, value), self._device)
                binding.bind_ortvalue_input(name, value)
            for tensor in self.spec.outputs:
                shape = [lengths[n] if isinstance(n, str) else n for n in tensor.shape]
                outputs[tensor.name] = ort_value.ortvalue_from_shape_and_type(
                    shape, np.dtype(tensor.dtype), self._device, 0
                )
                binding.bind_ortvalue_output(tensor.name, outputs[tensor.name])
            self._session.run_with_iobinding(binding, _run_options(_NO_GRAPH))
        return outputs

    def allocate(self, shape: tuple[int, ...], dtype: str) -> Buffer:
        """A new buffer on the engine's device; its values are undefined."""
        with engine_failures(self.spec.name, self.backend):
            return OrtBuffer(shape, dtype, self._device)

    def enqueue(
        self, inputs: Mapping[str, Buffer], outputs: Mapping[str, Buffer], *, wait: bool = False
    ) -> None:
        """Run from buffers to buffers; see `BoundEngine.enqueue`."""
        bound = [cast(OrtBuffer, inputs[tensor.name]) for tensor in self._cuda.inputs]
        bound += [cast(OrtBuffer, outputs[t.name]) for t in self._cuda.outputs if t.name in outputs]
        key = tuple(number for buffer in bound for number in (buffer.address, *buffer.shape))
        with ONE_AT_A_TIME, engine_failures(self.spec.name, self.backend):
            if key in self._calls:
                self._calls[key].run(wait)
                return
            try:
                call = self._bind(inputs, outputs)
                if self._graphs:
                    call.warm_up()
                call.run(wait)
            except Exception as error:  # such as a kernel that waits, which no graph can hold
                if not self._graphs:
                    raise
                self._give_up_graphs(error)
                call = self._bind(inputs, outputs)
                call.run(wait)
            self._calls[key] = call

    def _open(self) -> Any:
        """The session, without CUDA graphs if it refuses them, as for a node on the host."""
        try:
            return self._session_with(graphs=self._graphs)
        except Exception as error:  # the runtime's exceptions share no base class but this
            if not self._graphs:
                raise
            session = self._session_with(graphs=False)
            self._tell_of_no_graphs(error)
            return session

    def _session_with(self, *, graphs: bool) -> Any:
        options = buffer_options()
        if self._cuda is not self.spec:
            options = cuda_engine_options(self.spec.name, graphs=graphs)
        return open_session(self._file, self.backend, self._threads, options)

    def _give_up_graphs(self, error: Exception) -> None:
        self._calls.clear()
        self._session = self._session_with(graphs=False)
        self._tell_of_no_graphs(error)

    def _tell_of_no_graphs(self, error: Exception) -> None:
        self._graphs = False
        LOG.info(f"{self.spec.name} runs without CUDA graphs, so slower ({_reason(error)}).")

    def _bind(self, inputs: Mapping[str, Buffer], outputs: Mapping[str, Buffer]) -> _Call:
        binding = self._session.io_binding()
        for tensor in self._cuda.inputs:
            cast(OrtBuffer, inputs[tensor.name]).bind(binding.bind_input, tensor.name)
        for name, buffer in outputs.items():
            cast(OrtBuffer, buffer).bind(binding.bind_output, name)
        graph = str(len(self._calls) + 1) if self._graphs else None
        return _Call(self._session, binding, graph, (*inputs.values(), *outputs.values()))

    def _lengths(self, given: Mapping[str, Value]) -> dict[str, int]:
        """The length of each dynamic dimension by its name, of these inputs."""
        lengths = dict(zip(LATENT_AXES, self._latent, strict=True))
        lengths |= dict(zip(IMAGE_AXES, self._image, strict=True))
        for tensor in self._cuda.inputs:
            value = given[tensor.name]
            array = isinstance(value, np.ndarray)
            shape = cast("list[int]", cast(Any, value).shape if array else value.shape())
            named = zip(tensor.shape, shape, strict=True)
            lengths |= {name: length for name, length in named if isinstance(name, str)}
        return lengths

    def _in_tables(self, inputs: Mapping[str, Value]) -> dict[str, Value]:
        """The inputs of the ONNX engine as those of the CUDA engine: tables of one step."""
        names = {table: name for name, table in TABLES.items()}
        given: dict[str, Value] = {STEP.name: np.array(0, np.int64)}
        for tensor in self._cuda.inputs:
            if tensor.name in names and tensor not in self.spec.inputs:
                given[tensor.name] = to_numpy(inputs[names[tensor.name]])[None]
            elif tensor != STEP:
                given[tensor.name] = inputs[tensor.name]
        taken = {tensor.name for tensor in self._cuda.inputs}
        return {name: value for name, value in given.items() if name in taken}


class _Call:
    """A session's call from certain buffers to certain buffers, which live as long as it does."""

    def __init__(
        self, session: Any, binding: Any, graph: str | None, buffers: tuple[Buffer, ...]
    ) -> None:
        self._session, self._binding, self._buffers = session, binding, buffers
        self._waits = _run_options(graph)
        self._enqueues = _run_options(graph)
        self._enqueues.add_run_config_entry("disable_synchronize_execution_providers", "1")

    def warm_up(self) -> None:
        """Run the call once by itself, so that its CUDA graph can be captured in `run`.

        ONNX Runtime runs it once more and then captures it. The first run of a shape shows what
        memory it needs, the second takes it as one block, which CUDA cannot allocate in a capture.
        """
        self._session.run_with_iobinding(self._binding, _run_options(_NO_GRAPH))

    def run(self, wait: bool) -> None:
        """Enqueue the call, and `wait` for it."""
        options = self._waits if wait else self._enqueues
        self._session.run_with_iobinding(self._binding, options)


class OrtBuffer:
    """A tensor that ONNX Runtime allocated on `device`. See `backends.engine.Buffer`."""

    def __init__(self, shape: tuple[int, ...], dtype: str, device: str) -> None:
        self.shape, self.dtype = shape, np.dtype(dtype)
        self._device, self._owner = device, self
        ort_value = library().OrtValue
        self._value = ort_value.ortvalue_from_shape_and_type(list(shape), self.dtype, device, 0)
        self.address = int(self._value.data_ptr())

    def fill(self, array: np.ndarray) -> None:
        """Copy an array of the same shape and type to the device."""
        if array.shape != self.shape or array.dtype != self.dtype:
            raise ValueError(
                f"{array.dtype} {list(array.shape)} does not fit {self.dtype} {list(self.shape)}"
            )
        self._value.update_inplace(np.ascontiguousarray(array).reshape(array.shape))

    def numpy(self) -> np.ndarray:
        """A copy in host memory, made after the work that was enqueued before."""
        values = self._value.numpy()
        return np.array(values) if self._device == "cpu" else values

    def rows(self, first: int, count: int) -> OrtBuffer:
        """`count` rows of the first dimension, at the same addresses; they can only be bound."""
        if not 0 <= first <= first + count <= self.shape[0]:
            raise ValueError(f"rows {first} to {first + count} of {self.shape[0]}")
        part = object.__new__(OrtBuffer)
        part.shape, part.dtype = (count, *self.shape[1:]), self.dtype
        part._device, part._owner, part._value = self._device, self._owner, None
        part.address = self.address + first * math.prod(self.shape[1:]) * self.dtype.itemsize
        return part

    def bind(self, bind: Any, name: str) -> None:
        """Bind the buffer by `bind`, a binding's `bind_input` or `bind_output`."""
        bind(name, self._device, 0, self.dtype.type, list(self.shape), self.address)


def _reason(error: Exception) -> str:
    """What ONNX Runtime says of a failure, without where in its source and on which machine."""
    said = first_line(error)
    _, failed, what = said.partition("CUDA failure")
    return (failed + what).partition(" ; ")[0] if failed else said


def _on_device(array: np.ndarray, device: str) -> Any:
    contiguous = np.ascontiguousarray(array).reshape(array.shape)  # which keeps a scalar one
    return library().OrtValue.ortvalue_from_numpy(contiguous, device, 0)


def _run_options(graph: str | None) -> Any:
    options = library().RunOptions()
    if graph is not None:
        options.add_run_config_entry("gpu_graph_id", graph)
    return options
