"""ONNX Runtime: one backend for each of its execution providers."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module, metadata
from pathlib import Path
from typing import Any, cast

import numpy as np

from synfer_rt.backends import libraries
from synfer_rt.backends.caches import cache_directory
from synfer_rt.backends.engine import Value, engine_failures, first_line
from synfer_rt.backends.runtimes import BackendStatus
from synfer_rt.bundle import Bundle
from synfer_rt.errors import UserError

_PROVIDERS = {
    "onnxruntime-tensorrt": "TensorrtExecutionProvider",
    "onnxruntime-cuda": "CUDAExecutionProvider",
    "onnxruntime-cpu": "CPUExecutionProvider",
}
_PACKAGES = ("onnxruntime", "onnxruntime-gpu")
_GPU_INSTALL = (
    f"pip uninstall -y onnxruntime onnxruntime-gpu && pip install {libraries.CUDA_PACKAGE}"
)
_ERRORS_ONLY = 3


class OnnxRuntimeEngine:
    """One ONNX file in an inference session. See `backends.engine.Engine`."""

    def __init__(self, bundle: Bundle, name: str, backend: str, threads: int) -> None:
        self.spec = bundle.engines[name]
        self.backend = backend
        self._device = "cpu" if backend == "onnxruntime-cpu" else "cuda"
        file = bundle.path / self.spec.file
        try:
            tensorrt = _tensorrt_options(bundle, name) if backend == "onnxruntime-tensorrt" else {}
            self._session = _session(file, backend, threads, tensorrt)
        except Exception as error:  # the runtime's exceptions share no base class but this
            raise UserError(
                f"{file} cannot be loaded by {backend} ({first_line(error)}); build the bundle "
                "again with `synfer-rt build-engines`."
            ) from None
        self._inputs = [node.name for node in self._session.get_inputs()]
        self._outputs = [node.name for node in self._session.get_outputs()]

    def run(self, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Outputs by name, in host memory."""
        with engine_failures(self.spec.name, self.backend):
            values = self._session.run(self._outputs, {name: inputs[name] for name in self._inputs})
        return dict(zip(self._outputs, values, strict=True))

    def run_on_device(self, inputs: Mapping[str, Value]) -> dict[str, Value]:
        """Outputs by name, as OrtValues in the memory of the engine's device."""
        ort_value = _module().OrtValue
        binding = self._session.io_binding()
        with engine_failures(self.spec.name, self.backend):
            for name in self._inputs:
                value = inputs[name]
                if isinstance(value, np.ndarray):
                    array = cast(np.ndarray, value)
                    contiguous = np.ascontiguousarray(array).reshape(array.shape)
                    value = ort_value.ortvalue_from_numpy(contiguous, self._device, 0)
                binding.bind_ortvalue_input(name, value)
            for name in self._outputs:
                binding.bind_output(name, self._device)
            self._session.run_with_iobinding(binding)
        return dict(zip(self._outputs, binding.get_outputs(), strict=True))


def open_engine(bundle: Bundle, name: str, backend: str, threads: int) -> OnnxRuntimeEngine:
    """See `Runtime.open_engine`."""
    return OnnxRuntimeEngine(bundle, name, backend, threads)


def run_file(file: Path, inputs: Mapping[str, np.ndarray], backend: str) -> np.ndarray:
    """See `Runtime.run_file`."""
    return _session(file, backend, 1, {}).run(None, dict(inputs))[0]


def computes(bundle: Bundle, backend: str) -> tuple[str, str, str]:
    """See `Runtime.computes`."""
    version = f"onnxruntime {_module().__version__}"
    if backend == "onnxruntime-cpu":
        return "fp32", version, "cpu"
    half = backend == "onnxruntime-tensorrt" and _half(bundle, "denoiser")
    return ("fp16" if half else "fp32"), version, "gpu"


def status(backend: str) -> BackendStatus:
    """Whether a session of this backend really computes here."""
    remedy = _remedy(backend)
    try:
        runtime = _module()
    except ImportError:
        return BackendStatus(backend, False, "onnxruntime is not installed", remedy)
    provider = _PROVIDERS[backend]
    if provider not in runtime.get_available_providers():
        both = _both_installed()
        reason = both or "this onnxruntime was built without it"
        return BackendStatus(backend, False, reason, remedy)
    try:
        example = import_module("onnxruntime.datasets").get_example("sigmoid.onnx")
        session = _session(Path(example), backend, 1, {})
        node = session.get_inputs()[0]
        session.run(None, {node.name: np.zeros(node.shape, np.float32)})
    except Exception as error:  # the runtime's exceptions share no base class but this
        return BackendStatus(backend, False, first_line(error), remedy)
    return BackendStatus(backend, True, "works", "")


def installation_problem() -> str | None:
    """What is wrong with this installation, with its remedy, or None."""
    both = _both_installed()
    return f"{both}; run `{_GPU_INSTALL}`." if both else None


def _module() -> Any:
    """ONNX Runtime, which has no types. Raises ModuleNotFoundError if it is not installed."""
    module = import_module("onnxruntime")
    if not hasattr(module, "InferenceSession"):  # half-removed, it leaves an empty package
        raise ModuleNotFoundError("onnxruntime is not installed")
    return module


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


def _session(file: Path, backend: str, threads: int, tensorrt: Mapping[str, Any]) -> Any:
    """An inference session in which the backend's provider comes first.

    Raises RuntimeError when ONNX Runtime silently falls back to another provider.
    """
    onnxruntime = _module()
    onnxruntime.set_default_logger_severity(_ERRORS_ONLY)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = _ERRORS_ONLY
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    # Engines take turns: spinning threads of the last one would slow down the next.
    options.add_session_config_entry("session.force_spinning_stop", "1")

    providers: list[Any] = ["CPUExecutionProvider"]
    if backend != "onnxruntime-cpu":
        libraries.preload(onnxruntime, tensorrt=backend == "onnxruntime-tensorrt")
        providers.insert(0, "CUDAExecutionProvider")
    if backend == "onnxruntime-tensorrt":
        providers.insert(0, ("TensorrtExecutionProvider", dict(tensorrt)))
    session = onnxruntime.InferenceSession(str(file), options, providers=providers)
    if session.get_providers()[0] != _PROVIDERS[backend]:
        raise RuntimeError("it does not load: its libraries or its GPU are missing")
    return session


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
