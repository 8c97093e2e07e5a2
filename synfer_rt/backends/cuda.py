"""An NVIDIA GPU through cuda-python: one stream of work, and arrays in its memory.

The stream orders all work, so released memory can be reused at once: whatever still reads it was
enqueued before.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable
from functools import cache
from importlib import import_module
from typing import Any

import numpy as np

from synfer_rt.errors import UserError


class CudaError(RuntimeError):
    """A CUDA call that failed; the message is CUDA's name for the error."""


class Pool:
    """Memory by size: released memory is reused before more is allocated."""

    def __init__(self, allocate: Callable[[int], int], free: Callable[[int], None]) -> None:
        self._allocate, self._free = allocate, free
        self._released: dict[int, list[int]] = defaultdict(list)

    def take(self, size: int) -> int:
        """The address of `size` bytes; if memory runs out, idle memory is freed first."""
        if self._released[size]:
            return self._released[size].pop()
        try:
            return self._allocate(size)
        except CudaError:
            self.empty()
            return self._allocate(size)

    def release(self, size: int, pointer: int) -> None:
        """Take back what `take` gave."""
        self._released[size].append(pointer)

    def empty(self) -> None:
        """Free all idle memory."""
        for pointers in self._released.values():
            while pointers:
                self._free(pointers.pop())


class Device:
    """The first visible GPU, and the stream on which everything runs.

    `runtime` is the module `cuda.bindings.runtime`.
    """

    def __init__(self, runtime: Any) -> None:
        self._runtime = runtime
        _call(runtime.cudaSetDevice(0))
        self.stream = int(_call(runtime.cudaStreamCreateWithFlags(runtime.cudaStreamNonBlocking)))
        self.pool = Pool(
            lambda size: int(_call(runtime.cudaMalloc(size))),
            lambda pointer: _call(runtime.cudaFree(pointer)),
        )

    @property
    def compute_capability(self) -> str:
        """Like "sm89"."""
        attribute = self._runtime.cudaDeviceAttr
        major, minor = (
            _call(self._runtime.cudaDeviceGetAttribute(name, 0))
            for name in (
                attribute.cudaDevAttrComputeCapabilityMajor,
                attribute.cudaDevAttrComputeCapabilityMinor,
            )
        )
        return f"sm{major}{minor}"

    def free_memory(self) -> int:
        """Bytes that can be allocated now."""
        self.pool.empty()
        return int(_call(self._runtime.cudaMemGetInfo())[0])

    def upload(self, source: np.ndarray, pointer: int) -> None:
        """Copy a contiguous array to the GPU, after the enqueued work.

        CUDA has read the array when this returns, since it is not page-locked.
        """
        self._copy(pointer, source.ctypes.data, source.nbytes, "cudaMemcpyHostToDevice")

    def download(self, pointer: int, target: np.ndarray) -> None:
        """Copy to a contiguous array after the enqueued work, and wait for it."""
        self._copy(target.ctypes.data, pointer, target.nbytes, "cudaMemcpyDeviceToHost")
        self.wait()

    def duplicate(self, source: int, target: int, size: int) -> None:
        """Copy within the GPU, after the enqueued work."""
        self._copy(target, source, size, "cudaMemcpyDeviceToDevice")

    def wait(self) -> None:
        """Return when all enqueued work is done."""
        _call(self._runtime.cudaStreamSynchronize(self.stream))

    def record(self, work: Callable[[], None]) -> Graph:
        """Record what `work` enqueues, without running it, as a graph that can be launched."""
        runtime = self._runtime
        mode = runtime.cudaStreamCaptureMode.cudaStreamCaptureModeThreadLocal
        _call(runtime.cudaStreamBeginCapture(self.stream, mode))
        try:
            work()
        finally:  # a stream left in capture would refuse all further work
            error, graph = runtime.cudaStreamEndCapture(self.stream)
        _call((error, graph))
        try:
            return Graph(runtime, self.stream, _call(runtime.cudaGraphInstantiate(graph, 0)))
        finally:
            _call(runtime.cudaGraphDestroy(graph))

    def _copy(self, target: int, source: int, size: int, kind: str) -> None:
        kind = getattr(self._runtime.cudaMemcpyKind, kind)
        _call(self._runtime.cudaMemcpyAsync(target, source, size, kind, self.stream))


class Graph:
    """Recorded work on fixed addresses, launched as one."""

    def __init__(self, runtime: Any, stream: int, executable: Any) -> None:
        self._runtime, self._stream, self._executable = runtime, stream, executable

    def launch(self) -> None:
        """Enqueue the work."""
        _call(self._runtime.cudaGraphLaunch(self._executable, self._stream))

    def __del__(self) -> None:
        self._runtime.cudaGraphExecDestroy(self._executable)


class DeviceArray:
    """An array in the GPU's memory, which returns to the pool with its last reference."""

    def __init__(self, device: Device, shape: tuple[int, ...], dtype: Any) -> None:
        self.device, self.shape, self.dtype = device, shape, np.dtype(dtype)
        self.nbytes = math.prod(shape) * self.dtype.itemsize
        self.pointer = device.pool.take(max(self.nbytes, 1))

    def fill(self, source: np.ndarray | DeviceArray) -> None:
        """Copy the values of an array of the same shape and type from the host or the GPU."""
        if tuple(source.shape) != self.shape:
            raise ValueError(f"an array {list(source.shape)} does not fit {list(self.shape)}")
        if isinstance(source, DeviceArray):
            if source.dtype != self.dtype:
                raise ValueError(f"an array of {source.dtype} does not fit {self.dtype}")
            self.device.duplicate(source.pointer, self.pointer, self.nbytes)
        else:
            # ascontiguousarray would make a scalar one-dimensional, which has the same bytes.
            self.device.upload(np.ascontiguousarray(source, self.dtype), self.pointer)

    def copy(self) -> DeviceArray:
        """A copy on the GPU."""
        other = DeviceArray(self.device, self.shape, self.dtype)
        other.fill(self)
        return other

    def numpy(self) -> np.ndarray:
        """The values in host memory; waits for the work that computes them.

        Raises UserError if that work failed, which is reported only now.
        """
        array = np.empty(self.shape, self.dtype)
        try:
            self.device.download(self.pointer, array)
        except CudaError as error:
            raise UserError(
                f"The GPU failed ({error}); update the NVIDIA driver, or choose another `backend`."
            ) from error
        return array

    def __del__(self) -> None:
        if hasattr(self, "pointer"):  # no pointer if memory ran out
            self.device.pool.release(max(self.nbytes, 1), self.pointer)


def problem() -> str | None:
    """Why no GPU can be used through cuda-python here, or None."""
    try:
        count = _call(_module().cudaGetDeviceCount())
    except ModuleNotFoundError:
        return "cuda-python is not installed"
    except (CudaError, ImportError, RuntimeError) as error:
        return f"no NVIDIA GPU answers ({error})"
    return None if count else "there is no NVIDIA GPU"


@cache
def device() -> Device:
    """The GPU of this process. Raises UserError when there is none."""
    if reason := problem():
        raise UserError(f"No GPU can be used: {reason}; choose another `backend`.")
    return Device(_module())


def _module() -> Any:
    """cuda-python's CUDA runtime, which has no types; the one place that imports it."""
    return import_module("cuda.bindings.runtime")


def _call(result: tuple[Any, ...]) -> Any:
    """The value, or values, of a CUDA call. Raises CudaError when it failed."""
    error, *values = result
    if int(error) != 0:
        raise CudaError(getattr(error, "name", str(error)))
    return values[0] if len(values) == 1 else tuple(values)
