"""The measured peak: what is multiplied, and how fast."""

from __future__ import annotations

import sys
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnxruntime
import pytest

from synfer_rt.bench import matmul_peak
from synfer_rt.errors import UserError


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_the_model_multiplies_two_square_matrices(dtype: str):
    session = onnxruntime.InferenceSession(
        matmul_peak.model(dtype), providers=["CPUExecutionProvider"]
    )
    a, b = (np.random.default_rng(i).random((3, 3)).astype(dtype) for i in (0, 1))
    product = np.asarray(session.run(None, {"a": a, "b": b})[0])
    assert product.dtype == dtype
    assert np.allclose(product, a @ b, atol=1e-2)


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_the_model_is_what_onnx_writes(dtype: str):
    pytest.importorskip("onnx", reason="needs synfer-rt[export]")
    from onnx import TensorProto, helper

    kind = TensorProto.FLOAT if dtype == "float32" else TensorProto.FLOAT16
    a, b, product = (
        helper.make_tensor_value_info(name, kind, ["N", "N"]) for name in ("a", "b", "product")
    )
    node = helper.make_node("MatMul", ["a", "b"], ["product"])
    graph = helper.make_graph([node], "matmul", [a, b], [product])
    opsets = [helper.make_opsetid("", 17)]
    made = helper.make_model(graph, opset_imports=opsets, ir_version=8, producer_name="synfer-rt")
    assert matmul_peak.model(dtype) == made.SerializeToString()


def test_the_peak_of_a_cpu_is_that_of_its_products(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(matmul_peak, "_SECONDS", 0.05)
    found = matmul_peak.measure("openvino-cpu", 1)
    assert (found["dtype"], found["side"]) == ("float32", 1024)
    assert found["runtime"].endswith("CPUExecutionProvider")
    assert 1e8 < found["flops_per_second"] < 1e13


def test_operations_over_the_fastest_call(monkeypatch: pytest.MonkeyPatch):
    calls = iter([9.0, 9.0, 9.0, 0.5, 0.1, 0.5])  # the first three warm up
    assert matmul_peak._fastest(lambda: next(calls)) == 0.1
    assert matmul_peak._operations(8192) == 1_099_511_627_776


class Event:
    """CUDA events, 2 milliseconds apart."""

    def __init__(self, enable_timing: bool) -> None:
        assert enable_timing
        self.recorded = False

    def record(self) -> None:
        self.recorded = True

    def synchronize(self) -> None:
        assert self.recorded

    def elapsed_time(self, end: Event) -> float:
        assert self.recorded and end.recorded
        return 2.0


def with_torch(monkeypatch: pytest.MonkeyPatch, available: bool) -> None:
    cuda = SimpleNamespace(is_available=lambda: available, Event=Event)
    matrix = SimpleNamespace(cuda=lambda: "on the GPU")
    torch: Any = SimpleNamespace(cuda=cuda, __version__="2", matmul=lambda a, b: None)
    torch.from_numpy = lambda array: matrix
    monkeypatch.setitem(sys.modules, "torch", torch)


def test_pytorch_measures_where_onnxruntime_has_no_cuda(monkeypatch: pytest.MonkeyPatch):
    with_torch(monkeypatch, available=True)
    monkeypatch.setattr(matmul_peak, "_SECONDS", 0.0)
    monkeypatch.setattr(matmul_peak, "_matrix", lambda side, dtype: None)
    found = matmul_peak.measure("tensorrt-rtx-cuda", 1)
    assert found["flops_per_second"] == pytest.approx(2 * 8192**3 / 2e-3)
    assert (found["dtype"], found["clock"]) == ("float16", "CUDA events")


def test_a_peak_that_nothing_measures_is_told(monkeypatch: pytest.MonkeyPatch):
    with_torch(monkeypatch, available=False)
    with pytest.raises(UserError, match="install onnxruntime-gpu"):
        matmul_peak.measure("onnxruntime-cuda", 1)
