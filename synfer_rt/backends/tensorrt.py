"""TensorRT and TensorRT-RTX: a bundle's plans on an NVIDIA GPU.

Both libraries have the same Python API. A plan runs only on the compute capabilities and with the
version of the library that it was compiled for; the manifest says so before anything is loaded.
Tensors stay in the GPU's memory from one engine to the next.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from synfer_rt.backends import cuda, tensorrt_library
from synfer_rt.backends.caches import cache_directory
from synfer_rt.backends.cuda import CudaError, DeviceArray
from synfer_rt.backends.engine import Value, engine_failures
from synfer_rt.backends.runtimes import TARGETS, BackendStatus
from synfer_rt.backends.tensorrt_file import run_file as run_compiled
from synfer_rt.bundle import Bundle
from synfer_rt.bundle.engine_specs import BATCH, DENOISER, EngineSpec, TensorSpec
from synfer_rt.bundle.plans import PlanSpec
from synfer_rt.errors import UserError

_MOST_BATCHES = 4
"""The number of shapes (of batch and images) for which an engine keeps memory and a graph."""


class TensorRTEngine:
    """One plan, which runs any batch of its profile. See `backends.engine.Engine`.

    `graphs` says whether a call is replayed as one CUDA graph, recorded once for each batch size.
    """

    def __init__(self, bundle: Bundle, name: str, backend: str, graphs: bool = True) -> None:
        self.spec = bundle.engines[name]
        self.backend = backend
        self._plan = plan = checked_plan(bundle, name, backend)
        self._device = cuda.device()
        self._graphs = graphs
        self._trt = trt = tensorrt_library.load(plan.target)
        file = bundle.path / plan.file
        self._log = log = tensorrt_library.logger(trt)
        self._runtime = trt.Runtime(log)
        self._engine = self._runtime.deserialize_cuda_engine(file.read_bytes())
        if self._engine is None:
            raise UserError(f"{file} cannot be loaded ({log.said()}); {_rebuild(plan.target)}.")
        if problem := _differs(trt, self._engine, (*self.spec.inputs, *self.spec.outputs)):
            raise UserError(f"{file} {problem}; {_rebuild(plan.target)}.")
        self._batches: dict[tuple[tuple[str, int], ...], _Batch] = {}
        self._kernels = (
            _KernelCache(bundle, plan, self._device)
            if tensorrt_library.compiles_late(trt)
            else None
        )

    def run(self, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Outputs by name, in host memory."""
        return {name: value.numpy() for name, value in self.run_on_device(inputs).items()}

    def run_on_device(self, inputs: Mapping[str, Value]) -> dict[str, Value]:
        """Outputs by name, as arrays in the GPU's memory; they are the caller's to keep."""
        batch_size(self._plan, self.spec.inputs, inputs)
        with engine_failures(self.spec.name, self.backend):
            batch = self._batch(lengths(self.spec.inputs, inputs))
            for name, array in batch.inputs.items():
                array.fill(inputs[name])
            batch.run()
            return {name: array.copy() for name, array in batch.outputs.items()}

    def _batch(self, free: dict[str, int]) -> _Batch:
        """The `_Batch` whose dynamic dimensions have these lengths; the last few are kept."""
        key = tuple(free.items())
        batch = self._batches.pop(key, None)
        if batch is None:
            if len(self._batches) == _MOST_BATCHES:
                self._device.wait()  # the one to delete may still be running
                del self._batches[next(iter(self._batches))]
            recordable = self._graphs and self._kernels is None
            batch = _Batch(
                self.spec, free, self._device, self._context(), self._log, recordable=recordable
            )
            if self._kernels is not None:
                self._kernels.save()
        self._batches[key] = batch
        return batch

    def _context(self) -> Any:
        """An execution context. A graph is bound to its context, so every batch has its own."""
        if self._kernels is None:
            context = self._engine.create_execution_context()
        else:
            context = self._engine.create_execution_context(
                self._kernels.configured(self._trt, self._engine, self._graphs)
            )
        if context is None:
            raise CudaError(self._log.said())
        return context


class _Batch:
    """A plan at one shape of its inputs: its context, and tensors at fixed addresses.

    `free` are the lengths of the dynamic dimensions. If `recordable`, a graph replays the calls.
    """

    def __init__(
        self,
        spec: EngineSpec,
        free: Mapping[str, int],
        device: cuda.Device,
        context: Any,
        log: Any,
        *,
        recordable: bool,
    ) -> None:
        self._device, self._context, self._log = device, context, log
        self._recordable = recordable
        self._graph: cuda.Graph | None = None

        self.inputs: dict[str, DeviceArray] = {}
        for tensor in spec.inputs:
            shape = sized(tensor, free)
            if shape != tensor.shape:
                self._check(self._context.set_input_shape(tensor.name, shape))
            self.inputs[tensor.name] = array = DeviceArray(self._device, shape, tensor.dtype)
            array.fill(np.zeros(shape, tensor.dtype))
        # Only the plan knows the number of pixels per latent position.
        self.outputs = {
            tensor.name: DeviceArray(
                self._device, tuple(self._context.get_tensor_shape(tensor.name)), tensor.dtype
            )
            for tensor in spec.outputs
        }
        for name, array in (self.inputs | self.outputs).items():
            self._check(self._context.set_tensor_address(name, array.pointer))
        self._enqueue()  # the first call sets up what a graph cannot record
        self._device.wait()

    def run(self) -> None:
        """Enqueue one call."""
        if self._graph is None and self._recordable:
            self._graph = self._device.record(self._enqueue)
        if self._graph is None:
            self._enqueue()
        else:
            self._graph.launch()

    def _enqueue(self) -> None:
        self._check(self._context.execute_async_v3(self._device.stream))

    def _check(self, done: bool) -> None:
        if not done:
            raise CudaError(self._log.said())


class _KernelCache:
    """The kernels that TensorRT-RTX compiles for this GPU when a plan first runs, kept on disk.

    They belong to one build of the plan, which the bundle's hash does not cover.
    """

    def __init__(self, bundle: Bundle, plan: PlanSpec, device: cuda.Device) -> None:
        directory = cache_directory("tensorrt-rtx", bundle)
        build = bundle.manifest["files"][plan.file]["sha256"][:16]
        file = f"{plan.engine}-{device.compute_capability}-{build}.kernels"
        self._file = directory and directory / file
        self._cache: Any = None

    def configured(self, trt: Any, engine: Any, graphs: bool) -> Any:
        """The settings of a context.

        Kernels are specialised for a shape before its first call. Specialised beside it, they would
        change in the middle of a run, and the last bits of the images with them. The library
        records its graphs itself, since only it knows when its kernels are final.
        """
        config = engine.create_runtime_config()
        strategy = trt.DynamicShapesKernelSpecializationStrategy
        config.dynamic_shapes_kernel_specialization_strategy = strategy.EAGER
        kind = trt.CudaGraphStrategy
        config.cuda_graph_strategy = kind.WHOLE_GRAPH_CAPTURE if graphs else kind.DISABLED
        if self._cache is None:
            self._cache = config.create_runtime_cache()
            if self._file is not None and self._file.is_file():
                self._cache.deserialize(self._file.read_bytes())  # False, and empty, if outdated
        config.set_runtime_cache(self._cache)
        return config

    def save(self) -> None:
        """Write the file again, completely or, on a full disk, not at all."""
        if self._file is None or self._cache is None:
            return
        with suppress(OSError):
            handle, temporary = tempfile.mkstemp(prefix=self._file.name, dir=self._file.parent)
            try:
                with os.fdopen(handle, "wb") as out:
                    out.write(bytes(self._cache.serialize()))
                os.replace(temporary, self._file)
            except BaseException:
                os.unlink(temporary)
                raise


def open_engine(
    bundle: Bundle, name: str, backend: str, threads: int, rows: int | None
) -> TensorRTEngine:
    """See `Runtime.open_engine`; a GPU uses neither `threads` nor `rows`."""
    return TensorRTEngine(bundle, name, backend)


def run_file(file: Path, inputs: Mapping[str, np.ndarray], backend: str) -> np.ndarray:
    """See `Runtime.run_file`; the file is compiled first, for seconds."""
    return run_compiled(file, inputs, TARGETS[backend])


def computes(bundle: Bundle, backend: str) -> tuple[str, str, str]:
    """See `Runtime.computes`."""
    target = TARGETS[backend]
    version, capability = _here(target)
    return checked_plan(bundle, DENOISER, backend).precision, f"{target} {version}", capability


def status(backend: str) -> BackendStatus:
    """Whether the library and a GPU are available."""
    target = TARGETS[backend]
    remedy = f"on a machine with an NVIDIA driver run `pip install {target} cuda-python`"
    try:
        tensorrt_library.load(target)
    except ImportError as error:
        missing = isinstance(error, ModuleNotFoundError)
        reason = f"{target} is not installed" if missing else str(error).split("\n")[0]
        return BackendStatus(backend, False, reason, remedy)
    if problem := cuda.problem():
        return BackendStatus(backend, False, problem, remedy)
    return BackendStatus(backend, True, "works", "")


def obstacle(bundle: Bundle, backend: str) -> tuple[str, str] | None:
    """Why the bundle's plans cannot run here, with the remedy, or None.

    The library and a GPU must be available.
    """
    target = TARGETS[backend]
    version, capability = _here(target)
    problem = plans_obstacle(bundle, target, version, capability)
    return (problem, _rebuild(target, capability)) if problem else None


def plans_obstacle(bundle: Bundle, target: str, version: str, capability: str) -> str | None:
    """Why the bundle's plans cannot sample, as part of a sentence, or None.

    `version` is the installed library's, `capability` the GPU's, like "sm89".
    """
    plans = bundle.plans.get(target, {})
    for name in ("conditioner", *bundle.denoisers, "decoder", *bundle.annotators):
        if name not in plans:
            return lacks_plan(bundle, target, name)
        if problem := plan_obstacle(plans[name], version, capability):
            return problem
    return None


def lacks_plan(bundle: Bundle, target: str, name: str) -> str:
    """That a bundle lacks a plan, as part of a sentence."""
    if not bundle.plans.get(target):
        return f"{bundle.name} has no {target} plans"
    return f"{bundle.name} has no {target} plan for {name}"


def plan_obstacle(plan: PlanSpec, version: str, capability: str) -> str | None:
    """Why a plan cannot run, as part of a sentence, or None."""
    if plan.version != version:
        return (
            f"the {plan.target} plan for {plan.engine} was compiled by {plan.target} "
            f"{plan.version}, and {version} is installed"
        )
    if capability not in plan.compute_capabilities:
        supported = ", ".join(plan.compute_capabilities)
        return (
            f"the {plan.target} plan for {plan.engine} is for {supported}, and this GPU is "
            f"{capability}"
        )
    return None


def checked_plan(bundle: Bundle, name: str, backend: str) -> PlanSpec:
    """The plan for engine `name`. Raises UserError if it is missing or cannot run here."""
    target = TARGETS[backend]
    version, capability = _here(target)
    plan = bundle.plans.get(target, {}).get(name)
    problem = plan_obstacle(plan, version, capability) if plan else lacks_plan(bundle, target, name)
    if plan is None or problem:
        raise UserError(f"{backend} cannot run {name}: {problem}; {_rebuild(target, capability)}.")
    return plan


def batch_size(plan: PlanSpec, tensors: tuple[TensorSpec, ...], inputs: Mapping[str, Value]) -> int:
    """The number of images in `inputs`. Raises UserError for one that the plan does not run."""
    first = next(tensor.name for tensor in tensors if tensor.shape[:1] == (BATCH,))
    size = inputs[first].shape[0]
    smallest, best, largest = plan.batches
    if not smallest <= size <= largest:
        raise UserError(
            f"The {plan.target} plan for {plan.engine} runs {smallest} to {largest} images at once,"
            f" not {size}; write such a `batch`, or build the bundle again with `synfer-rt "
            f"build-engines --target {plan.target} --batch {min(smallest, size)}:{best}:"
            f"{max(largest, size)}`."
        )
    return size


def lengths(tensors: tuple[TensorSpec, ...], inputs: Mapping[str, Value]) -> dict[str, int]:
    """The length of each dynamic dimension of `inputs`, by its name."""
    return {
        size: length
        for tensor in tensors
        for size, length in zip(tensor.shape, inputs[tensor.name].shape, strict=True)
        if isinstance(size, str)
    }


def sized(tensor: TensorSpec, free: Mapping[str, int]) -> tuple[int, ...]:
    """A tensor's shape if the dynamic dimensions have these lengths."""
    return tuple(free[size] if isinstance(size, str) else size for size in tensor.shape)


def _here(target: str) -> tuple[str, str]:
    """The installed library's version and the GPU's compute capability."""
    return str(tensorrt_library.load(target).__version__), cuda.device().compute_capability


def _rebuild(target: str, capability: str | None = None) -> str:
    command = f"synfer-rt build-engines CHECKPOINT --out DIR --target {target}"
    if capability is not None:
        command += f" --compute-capability {capability}"
    return f"build the bundle again, with the library that is installed here, by `{command}`"


def _differs(trt: Any, engine: Any, tensors: tuple[TensorSpec, ...]) -> str | None:
    """How the tensors of a plan differ from those in the manifest, or None."""
    names = {engine.get_tensor_name(i) for i in range(engine.num_io_tensors)}
    for tensor in tensors:
        if tensor.name not in names:
            return f"has no tensor {tensor.name}"
        shape = tuple(-1 if isinstance(size, str) else size for size in tensor.shape)
        if tuple(engine.get_tensor_shape(tensor.name)) != shape:
            return f"has another shape of {tensor}"
        if np.dtype(trt.nptype(engine.get_tensor_dtype(tensor.name))) != np.dtype(tensor.dtype):
            return f"has another type of {tensor}"
    if unknown := names - {tensor.name for tensor in tensors}:
        return f"has the unknown tensor {min(unknown)}"
    return None
