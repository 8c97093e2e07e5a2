"""The float16 graph: products in float16, delicate parts in float32, checked with its roundings."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("onnx", reason="the build side needs synfer-rt[export]")
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

from synfer_rt.bundle import open_bundle
from synfer_rt.export.tensorrt.mixed_precision import compute_half, error_of_half

ENGINES = ("conditioner", "denoiser", "decoder", "encoder", "classifier.residual")


def types(model: onnx.ModelProto) -> dict[str, int]:
    """The type of every value of a graph."""
    inferred = onnx.shape_inference.infer_shapes(model, check_type=True, strict_mode=True).graph
    values = (*inferred.input, *inferred.output, *inferred.value_info)
    known = {value.name: value.type.tensor_type.elem_type for value in values}
    return known | {tensor.name: tensor.data_type for tensor in inferred.initializer}


def save_product(path: Path, weight: np.ndarray) -> Path:
    """y = (x W) W, of x float32 [B, 4]."""
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["middle"]),
        helper.make_node("MatMul", ["middle", "w"], ["y"]),
    ]
    x, y = (helper.make_tensor_value_info(n, TensorProto.FLOAT, ["B", 4]) for n in "xy")
    graph = helper.make_graph(nodes, "g", [x], [y], [numpy_helper.from_array(weight, "w")])
    opsets = [helper.make_opsetid("", 21)]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=10), path)
    return path


def test_a_network_that_embeds_guidance_computes_in_float16(tmp_path: Path) -> None:
    """y = c (x W + sin(1000 g) W) W: only the sine and the product with c are exact."""
    nodes = [
        helper.make_node("Mul", ["guidance", "thousand"], ["angle"]),
        helper.make_node("Sin", ["angle"], ["sine"]),
        helper.make_node("MatMul", ["sine", "w"], ["embedded"]),
        helper.make_node("MatMul", ["x", "w"], ["read"]),
        helper.make_node("Add", ["read", "embedded"], ["sum"]),
        helper.make_node("MatMul", ["sum", "w"], ["prediction"]),
        helper.make_node("Mul", ["prediction", "coefficients"], ["y"]),
    ]
    shapes = {"x": ["B", 4], "guidance": ["B", 4], "coefficients": [1]}
    inputs = [helper.make_tensor_value_info(n, TensorProto.FLOAT, s) for n, s in shapes.items()]
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["B", 4])
    constants = {"w": np.eye(4, dtype="f4"), "thousand": np.array([1000], "f4")}
    weights = [numpy_helper.from_array(array, name) for name, array in constants.items()]
    graph = helper.make_graph(nodes, "g", inputs, [y], weights)
    opsets = [helper.make_opsetid("", 21)]
    source, half = tmp_path / "source.onnx", tmp_path / "half.onnx"
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=10), source)
    compute_half(source, half)
    model = onnx.load(half)
    known = types(model)
    found = {node.op_type: known[node.output[0]] for node in model.graph.node}
    assert (found["MatMul"], found["Add"]) == (TensorProto.FLOAT16, TensorProto.FLOAT16)
    assert (found["Sin"], found["Mul"]) == (TensorProto.FLOAT, TensorProto.FLOAT)


@pytest.fixture(scope="module")
def halves(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The float16 graphs of synfer-mini."""
    folder, bundle = tmp_path_factory.mktemp("half"), open_bundle()
    files = {name: folder / f"{name}.onnx" for name in ENGINES}
    for name, file in files.items():
        compute_half(bundle.path / bundle.engines[name].file, file)
    return files


@pytest.mark.parametrize("name", ENGINES)
def test_products_compute_in_float16_and_the_rest_does_not(
    halves: dict[str, Path], name: str
) -> None:
    model = onnx.load(halves[name])
    known = types(model)
    found = {op: set() for op in ("product", "norm", "softmax", "sine")}
    kinds = {
        **dict.fromkeys(("Conv", "Gemm", "MatMul"), "product"),
        **dict.fromkeys(("GroupNormalization", "LayerNormalization"), "norm"),
        **dict.fromkeys(("Sin", "Cos"), "sine"),
        "Softmax": "softmax",
    }
    for node in model.graph.node:
        if node.op_type in kinds:
            found[kinds[node.op_type]].update(known[value] for value in node.input)
    assert found.pop("product") == {TensorProto.FLOAT16}
    assert set().union(*found.values()) <= {TensorProto.FLOAT}


@pytest.mark.parametrize("name", ENGINES)
def test_inputs_and_outputs_keep_their_types(halves: dict[str, Path], name: str) -> None:
    bundle = open_bundle()
    half, whole = onnx.load(halves[name]), onnx.load(bundle.path / bundle.engines[name].file)
    assert list(half.graph.input) == list(whole.graph.input)
    assert list(half.graph.output) == list(whole.graph.output)


def test_the_solver_step_is_exact(halves: dict[str, Path]) -> None:
    draw = np.random.default_rng(0)
    given = {
        "timestep": np.array(700, np.float32),
        "coefficients": draw.standard_normal((4, 5), np.float32) * 100,
    }
    for tensor in open_bundle().engines["denoiser"].inputs:
        shape = [2 if n == "B" else int(n) for n in tensor.shape]
        given.setdefault(tensor.name, draw.standard_normal(shape, np.float32))
    session = onnxruntime.InferenceSession(halves["denoiser"], providers=["CPUExecutionProvider"])
    names = ["next_latents", "next_history", "prediction"]
    latents, history, prediction = (np.asarray(x) for x in session.run(names, given))
    stack = np.concatenate([given["latents"][:, None], prediction[:, None], given["history"]], 1)
    rows = np.einsum("km,bmchw->bkchw", given["coefficients"].astype(float), stack)
    np.testing.assert_allclose(latents, rows[:, 0], atol=1e-5 * np.abs(rows).max())
    np.testing.assert_allclose(history, rows[:, 1:], atol=1e-5 * np.abs(rows).max())


def test_the_error_is_that_of_float16(tmp_path: Path) -> None:
    weight = np.random.default_rng(0).random((4, 4), np.float32)
    whole = save_product(tmp_path / "whole.onnx", weight)
    compute_half(whole, tmp_path / "half.onnx")
    error = error_of_half(whole, tmp_path / "half.onnx", {"x": np.ones((1, 4), np.float32)})
    assert 1e-5 < error < 2e-3


def test_what_overflows_float16_is_found(tmp_path: Path) -> None:
    whole = save_product(tmp_path / "whole.onnx", np.full((4, 4), 1000, np.float32))
    compute_half(whole, tmp_path / "half.onnx")
    error = error_of_half(whole, tmp_path / "half.onnx", {"x": np.full((1, 4), 60, np.float32)})
    assert not error < 1


def test_a_constant_that_float16_cannot_hold_stays_float32(tmp_path: Path) -> None:
    whole = save_product(tmp_path / "whole.onnx", np.full((4, 4), 1e6, np.float32))
    compute_half(whole, tmp_path / "half.onnx")
    error = error_of_half(whole, tmp_path / "half.onnx", {"x": np.ones((1, 4), np.float32)})
    assert error == 0
