"""A simulated GPU: the calls of CUDA and TensorRT that the backend makes, executed on the CPU.

With it the tests of a GPU run everywhere and check all of the backend but the libraries: when
memory is read and written, what is recorded and replayed, what is kept and released. Memory that
was never written, or was released, holds NaN.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from enum import IntEnum
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnxruntime

from tests.backends import host_builder


class _Error(IntEnum):
    cudaSuccess = 0
    cudaErrorMemoryAllocation = 2


class HostRuntime:
    """The functions of `cuda.bindings.runtime`; each returns its error and its values."""

    cudaStreamNonBlocking = 1
    cudaStreamCaptureMode = SimpleNamespace(cudaStreamCaptureModeThreadLocal=1)
    cudaMemcpyKind = SimpleNamespace(
        cudaMemcpyHostToDevice=1, cudaMemcpyDeviceToHost=2, cudaMemcpyDeviceToDevice=3
    )
    cudaDeviceAttr = SimpleNamespace(
        cudaDevAttrComputeCapabilityMajor=75, cudaDevAttrComputeCapabilityMinor=76
    )

    def __init__(self, size: int = 1 << 28) -> None:
        self._size = size
        self._memory: dict[int, np.ndarray] = {}
        self._recording: list[Callable[[], None]] | None = None

    def enqueue(self, work: Callable[[], None]) -> None:
        """Run the work, or add it to the graph that is being recorded."""
        if self._recording is None:
            work()
        else:
            self._recording.append(work)

    def array(self, pointer: int, shape: tuple[int, ...], dtype: Any) -> np.ndarray:
        """The memory at an address that was handed out, as an array."""
        count = int(np.prod(shape, dtype=int)) * np.dtype(dtype).itemsize
        block = self._memory[pointer]
        return block.view(np.uint8)[:count].view(dtype).reshape(shape)

    def cudaSetDevice(self, device: int) -> tuple[_Error]:
        return (_Error.cudaSuccess,)

    def cudaStreamCreateWithFlags(self, flags: int) -> tuple[_Error, int]:
        return _Error.cudaSuccess, 7

    def cudaStreamSynchronize(self, stream: int) -> tuple[_Error]:
        assert self._recording is None, "nothing may wait while a graph is recorded"
        return (_Error.cudaSuccess,)

    def cudaDeviceGetAttribute(self, attribute: int, device: int) -> tuple[_Error, int]:
        return _Error.cudaSuccess, {75: 8, 76: 9}[attribute]

    def cudaMemGetInfo(self) -> tuple[_Error, int, int]:
        used = sum(block.nbytes for block in self._memory.values())
        return _Error.cudaSuccess, self._size - used, self._size

    def cudaMalloc(self, size: int) -> tuple[_Error, int | None]:
        assert self._recording is None, "nothing may be allocated while a graph is recorded"
        if self.cudaMemGetInfo()[1] < size:
            return _Error.cudaErrorMemoryAllocation, None
        block = np.full(-(-size // 4), np.nan, np.float32)
        self._memory[block.ctypes.data] = block
        return _Error.cudaSuccess, block.ctypes.data

    def cudaFree(self, pointer: int) -> tuple[_Error]:
        self._memory.pop(pointer).fill(np.nan)
        return (_Error.cudaSuccess,)

    def cudaMemcpyAsync(
        self, target: int, source: int, size: int, kind: int, stream: int
    ) -> tuple[_Error]:
        on_gpu = {1: [target], 2: [source], 3: [target, source]}[kind]
        assert all(pointer in self._memory for pointer in on_gpu)
        assert all(self._memory[pointer].nbytes >= size for pointer in on_gpu)

        def copy() -> None:
            ctypes.memmove(target, source, size)

        self.enqueue(copy)
        return (_Error.cudaSuccess,)

    def cudaStreamBeginCapture(self, stream: int, mode: int) -> tuple[_Error]:
        self._recording = []
        return (_Error.cudaSuccess,)

    def cudaStreamEndCapture(self, stream: int) -> tuple[_Error, Any]:
        work, self._recording = self._recording, None
        return _Error.cudaSuccess, work

    def cudaGraphInstantiate(self, graph: Any, flags: int) -> tuple[_Error, Any]:
        return _Error.cudaSuccess, list(graph)

    def cudaGraphDestroy(self, graph: Any) -> tuple[_Error]:
        return (_Error.cudaSuccess,)

    def cudaGraphLaunch(self, graph: Any, stream: int) -> tuple[_Error]:
        for work in graph:
            work()
        return (_Error.cudaSuccess,)

    def cudaGraphExecDestroy(self, graph: Any) -> tuple[_Error]:
        graph.clear()
        return (_Error.cudaSuccess,)


class HostLibrary:
    """The module `tensorrt` or, `with_kernels`, `tensorrt_rtx`; a plan is an ONNX file."""

    __version__ = "1.7.1"

    class ILogger:
        """Errors go nowhere else."""

        INTERNAL_ERROR, ERROR, VERBOSE = 0, 1, 4

    OnnxParser = host_builder.OnnxParser

    def __init__(self, runtime: HostRuntime, with_kernels: bool) -> None:
        self._cuda, self._rtx = runtime, with_kernels
        vars(self).update(host_builder.constants(with_kernels))
        if with_kernels:
            self.CudaGraphStrategy = SimpleNamespace(WHOLE_GRAPH_CAPTURE=1, DISABLED=0)
            self.DynamicShapesKernelSpecializationStrategy = SimpleNamespace(EAGER=1)

    def Builder(self, log: Any) -> host_builder.Builder:
        """What makes plans."""
        return host_builder.Builder(log, self._rtx)

    def Runtime(self, log: Any) -> Runtime:
        """What reads plans."""
        return Runtime(self._cuda, log)

    @staticmethod
    def nptype(dtype: str) -> Any:
        """numpy's type for a tensor's."""
        return {"tensor(float)": np.float32, "tensor(int64)": np.int64}[dtype]


class Runtime:
    """Reads plans; None for bytes that are none."""

    def __init__(self, runtime: HostRuntime, log: Any) -> None:
        self._cuda, self._log = runtime, log

    def deserialize_cuda_engine(self, serialized_engine: Any) -> ICudaEngine | None:
        try:
            session = onnxruntime.InferenceSession(bytes(serialized_engine))
        except Exception as error:
            self._log.log(HostLibrary.ILogger.ERROR, str(error))
            return None
        return ICudaEngine(self._cuda, session)


class ICudaEngine:
    def __init__(self, runtime: HostRuntime, session: Any) -> None:
        self._cuda, self._session = runtime, session
        nodes = (*session.get_inputs(), *session.get_outputs())
        self._nodes = {node.name: node for node in nodes}
        self.num_io_tensors = len(nodes)

    def get_tensor_name(self, index: int) -> str:
        return list(self._nodes)[index]

    def get_tensor_shape(self, name: str) -> list[int]:
        return [-1 if isinstance(size, str) else size for size in self._nodes[name].shape]

    def get_tensor_dtype(self, name: str) -> str:
        return self._nodes[name].type

    def create_runtime_config(self) -> IRuntimeConfig:
        return IRuntimeConfig()

    def create_execution_context(self, config: Any = None) -> IExecutionContext:
        return IExecutionContext(self._cuda, self)


class IRuntimeConfig:
    """TensorRT-RTX's."""

    def __init__(self) -> None:
        self.dynamic_shapes_kernel_specialization_strategy = self.cuda_graph_strategy = 0
        self._cache: IRuntimeCache | None = None

    def create_runtime_cache(self) -> IRuntimeCache:
        return IRuntimeCache()

    def set_runtime_cache(self, cache: IRuntimeCache) -> bool:
        self._cache = cache
        return True


class IRuntimeCache:
    """TensorRT-RTX's."""

    def serialize(self) -> bytes:
        return b"kernels"

    def deserialize(self, buffer: bytes) -> bool:
        return buffer == b"kernels"


class IExecutionContext:
    def __init__(self, runtime: HostRuntime, engine: ICudaEngine) -> None:
        self._cuda, self._engine = runtime, engine
        self._shapes: dict[str, tuple[int, ...]] = {}
        self._addresses: dict[str, int] = {}

    def set_input_shape(self, name: str, shape: tuple[int, ...]) -> bool:
        self._shapes[name] = shape
        return True

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        session = self._engine._session
        given = {
            node.name: np.zeros(
                self._shapes.get(node.name, tuple(node.shape)), HostLibrary.nptype(node.type)
            )
            for node in session.get_inputs()
        }
        return session.run([name], given)[0].shape

    def set_tensor_address(self, name: str, pointer: int) -> bool:
        self._addresses[name] = pointer
        return True

    def execute_async_v3(self, stream: int) -> bool:
        addresses = dict(self._addresses)

        def run() -> None:
            session = self._engine._session
            given = {}
            for node in session.get_inputs():
                shape = self._shapes.get(node.name, tuple(node.shape))
                dtype = HostLibrary.nptype(node.type)
                given[node.name] = self._cuda.array(addresses[node.name], shape, dtype).copy()
            for node, value in zip(session.get_outputs(), session.run(None, given), strict=True):
                self._cuda.array(addresses[node.name], value.shape, value.dtype)[...] = value

        self._cuda.enqueue(run)
        return True


CLASSES = (IExecutionContext, ICudaEngine, Runtime, *host_builder.CLASSES)
RTX_CLASSES = (IRuntimeCache, IRuntimeConfig, *CLASSES, host_builder.RtxBuilderConfig)
"""The classes, by the names of those of the bindings, that each library has."""
