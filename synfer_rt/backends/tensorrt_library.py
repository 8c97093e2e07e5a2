"""What TensorRT's and TensorRT-RTX's Python modules have in common: loading, messages, networks.

The same calls work in TensorRT 10 and 11 and in TensorRT-RTX. Since 11 every network is strongly
typed: it computes in the types that the ONNX file says.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import Any


def load(target: str) -> Any:
    """The module of the pip package `target`, which has no types. Raises ImportError."""
    module = import_module(target.replace("-", "_"))
    if not hasattr(module, "Runtime"):  # a half-removed installation leaves an empty package
        raise ModuleNotFoundError(f"{target} is not installed")
    return module


def compiles_late(trt: Any) -> bool:
    """Whether kernels are compiled when a plan runs: TensorRT-RTX does, TensorRT does not."""
    return hasattr(trt, "CudaGraphStrategy")


def parsed(trt: Any, builder: Any, file: Path, log: Any) -> Any:
    """The network of an ONNX file. Raises ValueError with the parser's reasons."""
    flag = trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED  # another number in 10 and in 11
    network = builder.create_network(1 << int(flag))
    parser = trt.OnnxParser(network, log)
    if not parser.parse_from_file(str(file)):
        found = (parser.get_error(i) for i in range(parser.num_errors))
        raise ValueError(
            "; ".join(f"{e.node_operator()} {e.node_name()}: {e.desc()}" for e in found)
        )
    return network


def float32_config(trt: Any, builder: Any) -> Any:
    """A builder's configuration in which float32 means float32.

    TF32 would round the factors of products to 10 bits.
    """
    config = builder.create_builder_config()
    config.clear_flag(trt.BuilderFlag.TF32)
    return config


def for_capabilities(trt: Any, config: Any, capabilities: Sequence[str]) -> None:
    """Let TensorRT-RTX compile for GPUs such as "sm89"."""
    config.num_compute_capabilities = len(capabilities)
    for i, capability in enumerate(capabilities):
        config.set_compute_capability(getattr(trt.ComputeCapability, capability.upper()), i)


def logger(trt: Any) -> Any:
    """A logger that keeps the library's errors for the message of a UserError."""

    class Log(trt.ILogger):
        def __init__(self) -> None:
            trt.ILogger.__init__(self)
            self._errors: list[str] = []

        def log(self, severity: Any, msg: str) -> None:
            if severity in (trt.ILogger.INTERNAL_ERROR, trt.ILogger.ERROR):
                self._errors.append(msg.split("\n")[0].rstrip("."))

        def said(self) -> str:
            return self._errors[0] if self._errors else "it gives no reason"

    return Log()
