"""Inference sessions of ONNX Runtime, and the options of its execution providers."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

from synfer_rt.backends import libraries

PROVIDERS = {
    "onnxruntime-tensorrt": "TensorrtExecutionProvider",
    "onnxruntime-cuda": "CUDAExecutionProvider",
    "onnxruntime-cpu": "CPUExecutionProvider",
}
_ERRORS, _NOTHING = 3, 4
_PER_THREAD_STREAM = "2"
"""The address of `cudaStreamPerThread`.

All engines then enqueue on one stream, so one reads what another wrote without waiting. Unlike the
stream that a session would make, it also waits for plain copies and is waited for by them (CUDA
Runtime API, stream synchronization behavior), and it can be captured (CUDA Programming Guide).
"""
_UNSAFE_IN_GRAPHS = "GatherSliceToSplitFusion"
"""An optimization that makes a Split of unequal parts out of slices of one tensor.

Such a Split copies the addresses of its parts from host memory, which ONNX Runtime frees after the
call. A CUDA graph would copy at each replay what lies there by then (microsoft/onnxruntime, pull
request 32121).
"""
FLOAT_ACTIVATIONS = ("session.qdq_matmulnbits_accuracy_level", "1")
"""The entry that keeps activations in float32 where weights alone are int8.

By default ONNX Runtime 1.32 rounds them to 8 bits, too (findings/onnxruntime_weight_only_int8.sh).
"""
_WEIGHTS_BESIDE = "session.model_external_initializers_file_folder_path"
_CUDA = {
    "use_tf32": "0",
    "cudnn_conv_algo_search": "HEURISTIC",
    "arena_extend_strategy": "kSameAsRequested",
}
"""Options of the CUDA provider for every engine.

TF32 has 10 bits of mantissa, too few for the solver's coefficients, which cancel each other; what
computes in float32 keeps it. cuDNN's heuristic chooses a convolution's algorithm without running
any; the default tries them all, for each shape anew and with as much memory as they want. Memory
grows by what is asked for, where the default would ask for up to twice that. A limit of memory
would hold for each session alone, so the batch is limited instead (memory.py).
"""


def library() -> Any:
    """ONNX Runtime, which has no types. Raises ModuleNotFoundError if it is not installed."""
    module = import_module("onnxruntime")
    if not hasattr(module, "InferenceSession"):  # half-removed, it leaves an empty package
        raise ModuleNotFoundError("onnxruntime is not installed")
    return module


def buffer_options() -> dict[str, str]:
    """The CUDA provider's options for an engine that runs from buffers to buffers."""
    return _CUDA | {"user_compute_stream": _PER_THREAD_STREAM}


def cuda_engine_options(engine: str, *, graphs: bool) -> dict[str, str]:
    """The CUDA provider's options for the CUDA engine called `engine`.

    `graphs` says whether its calls are captured. Convolutions run channels last, as the kernel of
    GroupNorm needs it. Skip layer normalisation computes its statistics in float32 (its strict
    mode). A guide's networks may use TF32: the rounding is that of float16, which the other engines
    compute in, and the range that of float32, which gradients need; the solver's coefficients are
    in no product there. Attention's kernel is the provider's choice by GPU, type and shape
    (`sdpa_kernel` could only forbid some).
    """
    return buffer_options() | {
        "use_tf32": "1" if engine.startswith("guide.") else "0",
        "prefer_nhwc": "1",
        "enable_skip_layer_norm_strict_mode": "1",
        "cudnn_conv_use_max_workspace": "1",
        "enable_cuda_graph": "1" if graphs else "0",
    }


def open_session(
    file: Path,
    backend: str,
    threads: int,
    options: Mapping[str, Any] | None = None,
    content: bytes | None = None,
) -> Any:
    """An inference session in which the backend's provider comes first.

    `options` are that provider's, by default `_CUDA` for CUDA. `content` are bytes to read instead
    of those of the `file`. Raises RuntimeError when ONNX Runtime silently falls back to another
    provider.
    """
    module = library()
    module.set_default_logger_severity(_ERRORS)
    settings = module.SessionOptions()
    # An engine that refuses CUDA graphs is opened without them, which the caller tells.
    graphs = options is not None and options.get("enable_cuda_graph") == "1"
    settings.log_severity_level = _NOTHING if graphs else _ERRORS
    if graphs:
        key = "optimization.disable_specified_optimizers"
        settings.add_session_config_entry(key, _UNSAFE_IN_GRAPHS)
    settings.graph_optimization_level = module.GraphOptimizationLevel.ORT_ENABLE_ALL
    settings.intra_op_num_threads = threads
    settings.inter_op_num_threads = 1
    # Engines take turns: spinning threads of the last one would slow down the next.
    settings.add_session_config_entry("session.force_spinning_stop", "1")
    settings.add_session_config_entry(*FLOAT_ACTIVATIONS)

    providers: list[Any] = ["CPUExecutionProvider"]
    if backend != "onnxruntime-cpu":
        settings.add_session_config_entry("session.record_ep_graph_assignment_info", "1")
        libraries.preload(module, tensorrt=backend == "onnxruntime-tensorrt")
        given = options if options is not None and backend == "onnxruntime-cuda" else _CUDA
        providers.insert(0, ("CUDAExecutionProvider", dict(given)))
    if backend == "onnxruntime-tensorrt":
        providers.insert(0, ("TensorrtExecutionProvider", dict(options or {})))
    if content is not None:
        settings.add_session_config_entry(_WEIGHTS_BESIDE, str(file.parent))
    model = str(file) if content is None else content
    session = module.InferenceSession(model, settings, providers=providers)
    if session.get_providers()[0] != PROVIDERS[backend]:
        raise RuntimeError("it does not load: its libraries or its GPU are missing")
    return session
