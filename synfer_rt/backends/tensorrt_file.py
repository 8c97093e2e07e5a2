"""Compile a small ONNX file on this machine, for its GPU, and run it once."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from synfer_rt.backends import cuda, tensorrt_library
from synfer_rt.backends.cuda import CudaError, DeviceArray


def run_file(file: Path, inputs: Mapping[str, np.ndarray], target: str) -> np.ndarray:
    """The only output, float32, of an ONNX file of fixed shapes. Raises any exception.

    `target` is the pip package, tensorrt or tensorrt-rtx.
    """
    trt, device = tensorrt_library.load(target), cuda.device()
    log = tensorrt_library.logger(trt)
    plan = _compiled(trt, file, device.compute_capability, log)
    runtime = trt.Runtime(log)
    engine = None if plan is None else runtime.deserialize_cuda_engine(memoryview(plan))
    context = None if engine is None else engine.create_execution_context()
    if engine is None or context is None:
        raise CudaError(log.said())
    arrays: dict[str, DeviceArray] = {}
    for i in range(engine.num_io_tensors):
        name = engine.get_tensor_name(i)
        arrays[name] = DeviceArray(device, tuple(engine.get_tensor_shape(name)), np.float32)
        context.set_tensor_address(name, arrays[name].pointer)
    for name, value in inputs.items():
        arrays[name].fill(value)
    if not context.execute_async_v3(device.stream):
        raise CudaError(log.said())
    (output,) = arrays.keys() - inputs.keys()
    return arrays[output].numpy()


def _compiled(trt: Any, file: Path, capability: str, log: Any) -> Any:
    """The plan of a file, or None."""
    builder = trt.Builder(log)
    network = tensorrt_library.parsed(trt, builder, file, log)
    config = tensorrt_library.float32_config(trt, builder)
    if tensorrt_library.compiles_late(trt):
        tensorrt_library.for_capabilities(trt, config, (capability,))
    return builder.build_serialized_network(network, config)
