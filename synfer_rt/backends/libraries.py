"""NVIDIA's libraries: which of them a runtime did not find, and the command that brings them."""

from __future__ import annotations

import ctypes
import re
from collections.abc import Iterable
from contextlib import suppress
from importlib import import_module
from typing import Any

_NOT_FOUND = re.compile(r"\b(lib[\w+-]+)\.so((?:\.\d+)*): cannot open shared object file")
_NAMES = {
    "libcublas": "cuBLAS",
    "libcublasLt": "cuBLAS",
    "libcuda": "NVIDIA's driver",
    "libcudart": "CUDA's runtime",
    "libcudnn": "cuDNN",
    "libcufft": "cuFFT",
    "libcurand": "cuRAND",
    "libnvinfer": "TensorRT",
    "libnvinfer_plugin": "TensorRT",
    "libnvonnxparser": "TensorRT",
    "libnvrtc": "NVRTC",
}
CUDA_PACKAGE = "'onnxruntime-gpu[cuda,cudnn]'"
"""What brings CUDA's libraries and cuDNN in the versions that ONNX Runtime wants. The extra `cuda`
alone lacks cuBLAS, on which cuDNN's package depends."""


def missing(said: str) -> tuple[str, str] | None:
    """The libraries that a runtime's messages say were not found, and the remedy; or None.

    Both are parts of a sentence. A library that this module does not know counts for nothing.
    """
    files = {f"{n}.so{version}": n for n, version in _NOT_FOUND.findall(said) if n in _NAMES}
    if not files:
        return None
    found: dict[str, list[str]] = {}
    if not _has_driver():  # the loader stops at the first library that is missing
        files["libcuda.so.1"] = "libcuda"
        found[_NAMES["libcuda"]] = []
    for file, name in sorted(files.items()):
        found.setdefault(_NAMES[name], []).append(file)
    *others, last = [f"{name} ({', '.join(files)})" for name, files in found.items()]
    named = f"{', '.join(others)} and {last}" if others else last
    return f"{named} cannot be found", _remedy(found)


def _remedy(found: dict[str, list[str]]) -> str:
    driver, tensorrt = _NAMES["libcuda"], _NAMES["libnvinfer"]
    packages: list[str] = []
    if found.keys() - {driver, tensorrt}:
        packages.append(CUDA_PACKAGE)
    if tensorrt in found:
        packages.append(tensorrt_package(found[tensorrt]))
    remedies = ["install NVIDIA's driver"] if driver in found else []
    if packages:
        remedies.append(f"run `pip install {' '.join(packages)}`")
    return " and ".join(remedies)


def tensorrt_package(files: Iterable[str] = ()) -> str:
    """What brings TensorRT's libraries in the version that these files are named for.

    ONNX Runtime is built for one major version of TensorRT, which is not the newest: 10 for years.
    """
    majors = [int(major) for file in files if (major := file.rsplit(".", 1)[1]).isdigit()]
    return f"'tensorrt-cu{_cuda_version()}<{min(majors, default=10) + 1}'"


def preload(onnxruntime: Any, *, tensorrt: bool) -> None:
    """Load the libraries of NVIDIA's pip packages, where ONNX Runtime would not find them."""
    if hasattr(onnxruntime, "preload_dlls"):
        onnxruntime.preload_dlls()
    if tensorrt:
        with suppress(ImportError, OSError):
            import_module("tensorrt_libs")  # which loads its libraries


def _has_driver() -> bool:
    try:
        ctypes.CDLL("libcuda.so.1")
    except OSError:
        return False
    return True


def _cuda_version() -> str:
    """The major version of CUDA that ONNX Runtime was built for; 13 if it does not say."""
    with suppress(ImportError):
        built: object = getattr(import_module("onnxruntime"), "cuda_version", "")
        if found := re.match(r"\d+", str(built)):
            return found[0]
    return "13"
