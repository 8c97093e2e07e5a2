"""The gate: a graph that would fix the batch is refused; weights shrink, interfaces do not."""

from __future__ import annotations

import gc
import weakref
from pathlib import Path

import numpy as np
import onnx
import pytest

pytest.importorskip("diffusers", reason="the build side needs synfer-rt[export]")
import torch
from torch import nn

from synfer_rt.errors import UserError
from synfer_rt.export.build.verify import check, max_relative_error, references
from synfer_rt.export.onnx.forward_graph import export_onnx


class BranchesOnBatch(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + 1 if x.shape[0] >= 64 else x - 1


class FixesBatch(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.reshape(2, -1) * 2


class Perceptron(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layers = nn.Sequential(
            nn.Linear(256, 512), nn.LayerNorm(512), nn.GELU(), nn.Linear(512, 256)
        )

    def forward(self, x: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
        return self.layers(x) * scale


@pytest.mark.parametrize("module", [BranchesOnBatch(), FixesBatch()])
def test_a_graph_that_fixes_the_batch_is_refused(module: nn.Module, tmp_path: Path) -> None:
    path = tmp_path / "engine.onnx"
    with pytest.raises(UserError, match="free batch"):
        export_onnx(module, {"x": torch.rand(2, 4)}, ("y",), frozenset(), path, "fp32")
    assert not path.exists()


@pytest.fixture(scope="module")
def perceptrons(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("perceptrons")
    for precision in ("fp32", "fp16"):
        inputs = {"x": torch.rand(2, 256), "scale": torch.tensor(2.0)}
        path = folder / f"{precision}.onnx"
        export_onnx(Perceptron(), inputs, ("y",), frozenset({"scale"}), path, precision)
    return {precision: folder / f"{precision}.onnx" for precision in ("fp32", "fp16")}


def test_only_the_batch_is_dynamic_and_it_is_called_b(perceptrons: dict[str, Path]) -> None:
    graph = onnx.load(perceptrons["fp32"]).graph
    shapes = {
        v.name: [d.dim_param or d.dim_value for d in v.type.tensor_type.shape.dim]
        for v in (*graph.input, *graph.output)
    }
    assert shapes == {"x": ["B", 256], "scale": [], "y": ["B", 256]}


def test_fp16_halves_the_file_and_keeps_float32_outside(perceptrons: dict[str, Path]) -> None:
    sizes = {precision: path.stat().st_size for precision, path in perceptrons.items()}
    assert sizes["fp16"] < 0.53 * sizes["fp32"]
    graph = onnx.load(perceptrons["fp16"]).graph
    types = {v.type.tensor_type.elem_type for v in (*graph.input, *graph.output)}
    assert types == {onnx.TensorProto.FLOAT}
    halves = [t for t in graph.initializer if t.data_type == onnx.TensorProto.FLOAT16]
    assert sorted(np.prod(t.dims) for t in halves) == [256 * 512, 256 * 512]


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_an_exported_module_leaves_memory(tmp_path: Path, precision: str) -> None:
    module = Perceptron()
    weights = [weakref.ref(parameter) for parameter in module.parameters()]
    # With positions beside the batch the weights are transposed, and the originals replaced.
    inputs = {"x": torch.rand(2, 3, 256), "scale": torch.tensor(2.0)}
    export_onnx(module, inputs, ("y",), frozenset({"scale"}), tmp_path / "x.onnx", precision)
    del module
    gc.collect()
    assert [weight() for weight in weights if weight() is not None] == []


@pytest.mark.parametrize(("precision", "least", "most"), [("fp32", 0, 1e-5), ("fp16", 1e-6, 1e-3)])
def test_the_measured_error_tells_the_precisions_apart(
    perceptrons: dict[str, Path], precision: str, least: float, most: float
) -> None:
    def inputs(batch: int, size: object = None) -> dict[str, torch.Tensor]:
        return {"x": torch.linspace(0, 1, batch * 256).view(batch, 256), "scale": torch.tensor(3.0)}

    assert (
        least <= max_relative_error(perceptrons[precision], references(Perceptron(), inputs)) < most
    )


def test_the_measured_error_sees_a_wrong_engine(perceptrons: dict[str, Path]) -> None:
    def inputs(batch: int, size: object = None) -> dict[str, torch.Tensor]:
        return {"x": torch.ones(batch, 256), "scale": torch.tensor(1.0)}

    wrong = Perceptron()
    with torch.no_grad():
        wrong.get_parameter("layers.0.weight").mul_(1.5)
    assert max_relative_error(perceptrons["fp32"], references(wrong, inputs)) > 1e-2


def test_an_engine_of_nan_does_not_pass(perceptrons: dict[str, Path]) -> None:
    def inputs(batch: int, size: object = None) -> dict[str, torch.Tensor]:
        return {"x": torch.full((batch, 256), torch.nan), "scale": torch.tensor(1.0)}

    cases = references(lambda x, scale: torch.ones_like(x), inputs)
    error = max_relative_error(perceptrons["fp32"], cases)
    with pytest.raises(UserError, match="differs from PyTorch"):
        check("denoiser", error, 1e-2)
