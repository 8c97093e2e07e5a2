"""ONNX Runtime: one backend for each of its execution providers."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from types import ModuleType
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

_PROVIDERS = {
    "onnxruntime-tensorrt": "TensorrtExecutionProvider",
    "onnxruntime-cuda": "CUDAExecutionProvider",
    "onnxruntime-cpu": "CPUExecutionProvider",
}
_PACKAGES = ("onnxruntime", "onnxruntime-gpu")
_GPU_INSTALL = (
    "`pip uninstall -y onnxruntime && pip install --force-reinstall --no-deps onnxruntime-gpu`"
)
_ERRORS_ONLY = 3


class OnnxRuntimeEngine:
    """One ONNX file in an inference session. See `synfer_rt.backends.Engine`."""

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
        from onnxruntime import OrtValue

        binding = self._session.io_binding()
        with engine_failures(self.spec.name, self.backend):
            for name in self._inputs:
                value = inputs[name]
                if isinstance(value, np.ndarray):
                    contiguous = np.ascontiguousarray(value).reshape(value.shape)
                    value = OrtValue.ortvalue_from_numpy(contiguous, self._device, 0)
                binding.bind_ortvalue_input(name, value)
            for name in self._outputs:
                binding.bind_output(name, self._device)
            self._session.run_with_iobinding(binding)
        return dict(zip(self._outputs, binding.get_outputs(), strict=True))


def open_engine(bundle: Bundle, name: str, backend: str, threads: int) -> OnnxRuntimeEngine:
    """See `synfer_rt.backends.open_engine`."""
    return OnnxRuntimeEngine(bundle, name, backend, threads)


def computes(bundle: Bundle, backend: str) -> tuple[str, str, str]:
    """See `synfer_rt.backends.computes`."""
    import onnxruntime

    version = f"onnxruntime {onnxruntime.__version__}"
    if backend == "onnxruntime-cpu":
        return "fp32", version, "cpu"
    half = backend == "onnxruntime-tensorrt" and _half(bundle, "denoiser")
    return ("fp16" if half else "fp32"), version, "gpu"


def status(backend: str) -> BackendStatus:
    """Whether a session of this backend really computes here."""
    runtime, remedy = _import_runtime(), _remedy(backend)
    if runtime is None:
        return BackendStatus(backend, False, "onnxruntime is not installed", remedy)
    provider = _PROVIDERS[backend]
    if provider not in runtime.get_available_providers():
        both = _both_installed()
        reason = both or "this onnxruntime was built without it"
        return BackendStatus(backend, False, reason, remedy)
    from onnxruntime import datasets

    try:
        session = _session(Path(datasets.get_example("sigmoid.onnx")), backend, 1, {})
        node = session.get_inputs()[0]
        session.run(None, {node.name: np.zeros(node.shape, np.float32)})
    except Exception as error:  # the runtime's exceptions share no base class but this
        return BackendStatus(backend, False, first_line(error), remedy)
    return BackendStatus(backend, True, "works", "")


def installation_problem() -> str | None:
    """The classic trap of this machine's installation in one sentence with its remedy, or None."""
    both = _both_installed()
    return f"{both}; run {_GPU_INSTALL}." if both else None


def _import_runtime() -> ModuleType | None:
    try:
        import onnxruntime
    except ImportError:
        return None
    # Half-removed installations leave an empty namespace package behind.
    return onnxruntime if hasattr(onnxruntime, "InferenceSession") else None


def _both_installed() -> str | None:
    """Both packages write the same folder, and the one that was installed last wins."""
    found = []
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
    needs = "an NVIDIA driver" if backend == "onnxruntime-cuda" else "an NVIDIA driver and TensorRT"
    return f"on a machine with {needs} run {_GPU_INSTALL}"


def _session(file: Path, backend: str, threads: int, tensorrt: Mapping[str, Any]) -> Any:
    """An inference session in which the backend's provider comes first.

    Raises RuntimeError when ONNX Runtime falls back to another provider, which it does silently.
    """
    import onnxruntime

    onnxruntime.set_default_logger_severity(_ERRORS_ONLY)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = _ERRORS_ONLY
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    # Engines take turns: threads of one that is done would spin in the way of the next.
    options.add_session_config_entry("session.force_spinning_stop", "1")

    providers: list[Any] = ["CPUExecutionProvider"]
    if backend != "onnxruntime-cpu":
        if hasattr(onnxruntime, "preload_dlls"):
            onnxruntime.preload_dlls()  # finds CUDA in NVIDIA's pip packages
        providers.insert(0, "CUDAExecutionProvider")
    if backend == "onnxruntime-tensorrt":
        providers.insert(0, ("TensorrtExecutionProvider", dict(tensorrt)))
    session = onnxruntime.InferenceSession(str(file), options, providers=providers)
    if session.get_providers()[0] != _PROVIDERS[backend]:
        raise RuntimeError("it does not load: its libraries or its GPU are missing")
    return session


def _half(bundle: Bundle, name: str) -> bool:
    """Whether TensorRT may use float16: a guide's gradients are smaller than that reaches."""
    return bundle.engines[name].precision == "fp16" and not name.startswith("guide.")


def _tensorrt_options(bundle: Bundle, name: str) -> dict[str, Any]:
    """TensorRT compiles an engine for minutes: keep it, by the bundle that it came from."""
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
