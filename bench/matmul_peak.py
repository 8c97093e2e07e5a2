"""The peak of this machine that an engine's speed is held against: one large product of matrices.

It is measured in ONNX Runtime, which the engines run in, on the device of the backend: in float16
on a GPU, in float32 on a CPU. Where ONNX Runtime cannot use the GPU, PyTorch makes the product if
it can.
"""

from __future__ import annotations

import base64
import time
from collections.abc import Callable
from importlib import import_module
from typing import Any

import numpy as np

from synfer_rt.bench.systems import EVENTS, HOST_CLOCK
from synfer_rt.errors import UserError

_FLOAT32 = base64.b64decode(
    "CAgSCXN5bmZlci1ydDpsChcKAWEKAWISB3Byb2R1Y3QiBk1hdE11bBIGbWF0bXVsWhUKAWESEAoOCAESCgoDEgFO"
    "CgMSAU5aFQoBYhIQCg4IARIKCgMSAU4KAxIBTmIbCgdwcm9kdWN0EhAKDggBEgoKAxIBTgoDEgFOQgQKABAR"
)
"""An ONNX model of one MatMul of two matrices [N, N] in float32, as onnx.helper writes it."""
_TYPE_FLOAT32, _TYPE_FLOAT16 = b"\x08\x01\x12", b"\x08\x0a\x12"  # elem_type, then the shape
_SIDES = {"gpu": 8192, "cpu": 1024}
_SECONDS = 1.0
_WARM_UP, _LEAST = 3, 3


def model(dtype: str) -> bytes:
    """The product of two matrices [N, N] of "float32" or "float16" as an ONNX model."""
    return _FLOAT32 if dtype == "float32" else _FLOAT32.replace(_TYPE_FLOAT32, _TYPE_FLOAT16)


def measure(backend: str, threads: int) -> dict[str, Any]:
    """The floating-point operations per second of a product on the device of `backend`.

    Keys: `flops_per_second` (the fastest call), `dtype`, `side` (N), `runtime` and `clock`. Raises
    UserError if neither ONNX Runtime nor PyTorch reaches the GPU.
    """
    if backend.endswith("-cpu"):
        return _in_onnxruntime("CPUExecutionProvider", "cpu", "float32", threads)
    runtime: Any = import_module("onnxruntime")
    if "CUDAExecutionProvider" in runtime.get_available_providers():
        return _in_onnxruntime("CUDAExecutionProvider", "cuda", "float16", threads)
    torch = _torch_with_cuda()
    if torch is None:
        raise UserError(
            "The peak of the GPU was not measured, since neither ONNX Runtime nor PyTorch reaches "
            "it here; install onnxruntime-gpu (`synfer-rt doctor` says how)."
        )
    return _in_torch(torch)


def _in_onnxruntime(provider: str, device: str, dtype: str, threads: int) -> dict[str, Any]:
    runtime: Any = import_module("onnxruntime")
    options = runtime.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = threads
    if device == "cuda" and hasattr(runtime, "preload_dlls"):
        runtime.preload_dlls()
    session = runtime.InferenceSession(model(dtype), options, providers=[provider])
    if session.get_providers()[0] != provider:
        raise UserError(
            f"{provider} does not load; `synfer-rt doctor` says what ONNX Runtime lacks here."
        )
    side = _SIDES["gpu" if device == "cuda" else "cpu"]
    binding = session.io_binding()
    for name in ("a", "b"):
        value = runtime.OrtValue.ortvalue_from_numpy(_matrix(side, dtype), device, 0)
        binding.bind_ortvalue_input(name, value)
    binding.bind_output("product", device)

    def multiply() -> float:
        started = time.perf_counter()
        session.run_with_iobinding(binding)
        binding.synchronize_outputs()
        return time.perf_counter() - started

    return {
        "flops_per_second": _operations(side) / _fastest(multiply),
        "dtype": dtype,
        "side": side,
        "runtime": f"onnxruntime {runtime.__version__}, {provider}",
        "clock": HOST_CLOCK,
    }


def _torch_with_cuda() -> Any:
    try:
        torch: Any = import_module("torch")
    except ImportError:
        return None
    return torch if torch.cuda.is_available() else None


def _in_torch(torch: Any) -> dict[str, Any]:
    side = _SIDES["gpu"]
    a, b = (torch.from_numpy(_matrix(side, "float16")).cuda() for _ in "ab")

    def multiply() -> float:
        start, end = (torch.cuda.Event(enable_timing=True) for _ in "ab")
        start.record()
        torch.matmul(a, b)
        end.record()
        end.synchronize()
        return start.elapsed_time(end) / 1e3

    return {
        "flops_per_second": _operations(side) / _fastest(multiply),
        "dtype": "float16",
        "side": side,
        "runtime": f"torch {torch.__version__}",
        "clock": EVENTS,
    }


def _matrix(side: int, dtype: str) -> np.ndarray:
    """Random values: a GPU that multiplies zeros draws less power and is faster than it can be."""
    return (np.random.default_rng(0).random((side, side), np.float32) - 0.5).astype(dtype)


def _operations(side: int) -> int:
    return 2 * side**3


def _fastest(call: Callable[[], float]) -> float:
    """The seconds of the fastest call, of a second of calls or at least three, after a warm-up.

    Whatever disturbs a call makes it slower, and a peak is what the machine can do.
    """
    for _ in range(_WARM_UP):
        call()
    seconds: list[float] = []
    while len(seconds) < _LEAST or sum(seconds) < _SECONDS:
        seconds.append(call())
    return min(seconds)
