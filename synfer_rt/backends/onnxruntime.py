"""ONNX Runtime: one backend for each of its execution providers."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module, metadata
from pathlib import Path
from typing import Any, cast

import numpy as np

from synfer_rt.backends import libraries, onnxruntime_cpu
from synfer_rt.backends.caches import cache_directory
from synfer_rt.backends.cuda_engine import CudaEngine
from synfer_rt.backends.engine import ONE_AT_A_TIME, Engine, Value, engine_failures, first_line
from synfer_rt.backends.placement import Placement, nodes_by_provider
from synfer_rt.backends.runtimes import BackendStatus
from synfer_rt.backends.sessions import PROVIDERS, library, open_session
from synfer_rt.bundle import Bundle
from synfer_rt.bundle.cuda import keeps_interface
from synfer_rt.bundle.engine_specs import DENOISER
from synfer_rt.errors import UserError

CUDA_ENGINES_ON = {"onnxruntime-cuda": "cuda"}
"""The backends that run CUDA engines, each with ONNX Runtime's name of its device."""
_DEVICE = "cuda"
_PACKAGES = ("onnxruntime", "onnxruntime-gpu")
_GPU_INSTALL = (
    f"pip uninstall -y onnxruntime onnxruntime-gpu && pip install {libraries.CUDA_PACKAGE}"
)


class OnnxRuntimeEngine:
    """One ONNX file in an inference session on a GPU. See `backends.engine.Engine`."""

    def __init__(self, bundle: Bundle, name: str, backend: str, threads: int) -> None:
        self.spec = bundle.engines[name]
        self.backend = backend
        file = bundle.path / self.spec.file
        try:
            tensorrt = backend == "onnxruntime-tensorrt"
            options = _tensorrt_options(bundle, name) if tensorrt else None
            self._session = open_session(file, backend, threads, options)
        except Exception as error:  # the runtime's exceptions share no base class but this
            raise UserError(
                f"{file} cannot be loaded by {backend} ({first_line(error)}); build the bundle "
                "again with `synfer-rt build-engines`."
            ) from None
        self._inputs = [node.name for node in self._session.get_inputs()]
        self._outputs = [node.name for node in self._session.get_outputs()]

    def placement(self) -> Placement:
        """See `Placed.placement`."""
        return Placement(self.backend, self.spec.file, nodes_by_provider(self._session))

    def run(self, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Outputs by name, in host memory."""
        with ONE_AT_A_TIME, engine_failures(self.spec.name, self.backend):
            values = self._session.run(self._outputs, {name: inputs[name] for name in self._inputs})
        return dict(zip(self._outputs, values, strict=True))

    def run_on_device(self, inputs: Mapping[str, Value]) -> dict[str, Value]:
        """Outputs by name, as OrtValues in the memory of the engine's device."""
        ort_value = library().OrtValue
        binding = self._session.io_binding()
        with ONE_AT_A_TIME, engine_failures(self.spec.name, self.backend):
            for name in self._inputs:
                value = inputs[name]
                if isinstance(value, np.ndarray):
                    array = cast(np.ndarray, value)
                    contiguous = np.ascontiguousarray(array).reshape(array.shape)
                    value = ort_value.ortvalue_from_numpy(contiguous, _DEVICE, 0)
                binding.bind_ortvalue_input(name, value)
            for name in self._outputs:
                binding.bind_output(name, _DEVICE)
            self._session.run_with_iobinding(binding)
        return dict(zip(self._outputs, binding.get_outputs(), strict=True))


def open_engine(bundle: Bundle, name: str, backend: str, threads: int, rows: int | None) -> Engine:
    """See `Runtime.open_engine`."""
    device = CUDA_ENGINES_ON.get(backend)
    if device is not None and (name in bundle.cuda or keeps_interface(bundle.engines[name])):
        return CudaEngine(bundle, name, backend, threads, device)
    if backend == onnxruntime_cpu.NAME:
        return onnxruntime_cpu.OnnxRuntimeCpuEngine(bundle, name, threads, rows)
    return OnnxRuntimeEngine(bundle, name, backend, threads)


def run_file(file: Path, inputs: Mapping[str, np.ndarray], backend: str) -> np.ndarray:
    """See `Runtime.run_file`."""
    return open_session(file, backend, 1).run(None, dict(inputs))[0]


def computes(bundle: Bundle, backend: str) -> tuple[str, str, str]:
    """See `Runtime.computes`."""
    version = f"onnxruntime {library().__version__}"
    if backend == "onnxruntime-cpu":
        return "fp32", version, "cpu"
    if backend in CUDA_ENGINES_ON and DENOISER in bundle.cuda:
        return bundle.cuda[DENOISER].precision, version, "gpu"
    half = backend == "onnxruntime-tensorrt" and _half(bundle, DENOISER)
    return ("fp16" if half else "fp32"), version, "gpu"


def status(backend: str) -> BackendStatus:
    """Whether a session of this backend really computes here."""
    remedy = _remedy(backend)
    try:
        runtime = library()
    except ImportError:
        return BackendStatus(backend, False, "onnxruntime is not installed", remedy)
    provider = PROVIDERS[backend]
    if provider not in runtime.get_available_providers():
        both = _both_installed()
        reason = both or "this onnxruntime was built without it"
        return BackendStatus(backend, False, reason, remedy)
    try:
        example = import_module("onnxruntime.datasets").get_example("sigmoid.onnx")
        session = open_session(Path(example), backend, 1)
        node = session.get_inputs()[0]
        session.run(None, {node.name: np.zeros(node.shape, np.float32)})
    except Exception as error:  # the runtime's exceptions share no base class but this
        return BackendStatus(backend, False, first_line(error), remedy)
    return BackendStatus(backend, True, "works", "")


def installation_problem() -> str | None:
    """What is wrong with this installation, with its remedy, or None."""
    both = _both_installed()
    return f"{both}; run `{_GPU_INSTALL}`." if both else None


def _both_installed() -> str | None:
    """That both packages are installed, or None. They share a folder, and the last one wins."""
    found: list[str] = []
    for package in _PACKAGES:
        try:
            found.append(f"{package} {metadata.version(package)}")
        except metadata.PackageNotFoundError:
            continue
    if len(found) < 2:
        return None
    return f"{' and '.join(found)} are both installed and overwrite each other"


def _remedy(backend: str) -> str:
    if backend == "onnxruntime-cpu":
        return "run `pip install --force-reinstall onnxruntime`"
    more = f" {libraries.tensorrt_package()}" if backend == "onnxruntime-tensorrt" else ""
    return f"on a machine with an NVIDIA driver run `{_GPU_INSTALL}{more}`"


def _half(bundle: Bundle, name: str) -> bool:
    """Whether TensorRT may use float16; a guide's gradients are too small for it."""
    return bundle.engines[name].precision == "fp16" and not name.startswith("guide.")


def _tensorrt_options(bundle: Bundle, name: str) -> dict[str, Any]:
    """The provider's options; compiling takes minutes, so the result is kept for each bundle."""
    options: dict[str, Any] = {"trt_fp16_enable": _half(bundle, name)}
    if cache := cache_directory("tensorrt", bundle):
        options |= {
            "trt_engine_cache_enable": True,
            "trt_engine_cache_path": str(cache),
            "trt_engine_cache_prefix": name,
            "trt_timing_cache_enable": True,
            "trt_timing_cache_path": str(cache),
        }
    return options
