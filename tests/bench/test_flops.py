"""Floating-point operations, against products worked out by hand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("onnx", reason="graphs are written with onnx (synfer-rt[export])")

import onnx
from onnx import TensorProto, helper

from synfer_rt.bench import flops
from synfer_rt.bundle import open_bundle


def operations(folder: Path, node: Any, *shapes: tuple[int, ...]) -> int:
    """Those of a graph of one node, whose inputs `x0`, `x1`, … have these shapes."""
    names = [name for name in node.input if name]
    # Every length of the first input is dynamic: what counts are the shapes at run time.
    dynamic = [[f"n{i}" for i in range(len(shapes[0]))], *shapes[1:]]
    given = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)
        for name, shape in zip(names, dynamic, strict=True)
    ]
    made = [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)]
    graph = helper.make_graph([node], "one", given, made)
    opsets = [helper.make_opsetid("", 18), helper.make_opsetid("com.microsoft", 1)]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=10), folder / "one.onnx")
    arrays = {n: np.zeros(s, np.float32) for n, s in zip(names, shapes, strict=True)}
    return flops.of_graph(folder / "one.onnx", arrays)


def node(operator: str, inputs: int, domain: str = "", **attributes: Any) -> Any:
    names = [f"x{i}" for i in range(inputs)]
    return helper.make_node(operator, names, ["y"], domain=domain, **attributes)


@pytest.mark.parametrize(
    ("attributes", "weights", "expected"),
    [
        # 3 x 8 outputs of 10 x 12, each a product over 4 channels and a kernel of 3 x 3.
        ({"pads": [1, 1, 1, 1]}, (8, 4, 3, 3), 2 * (3 * 8 * 10 * 12) * (4 * 3 * 3)),
        # A stride of 2: 5 x 6 positions.
        ({"pads": [1, 1, 1, 1], "strides": [2, 2]}, (8, 4, 3, 3), 2 * (3 * 8 * 5 * 6) * 36),
        # Two groups: each output sees 2 channels. No padding: 8 x 10 positions.
        ({"group": 2}, (8, 2, 3, 3), 2 * (3 * 8 * 8 * 10) * (2 * 3 * 3)),
        # Dilated, the kernel spans 5 x 5 and still has 9 weights a channel.
        ({"dilations": [2, 2]}, (8, 4, 3, 3), 2 * (3 * 8 * 6 * 8) * 36),
    ],
)
def test_a_convolution(
    tmp_path: Path, attributes: dict[str, Any], weights: tuple[int, ...], expected: int
):
    found = operations(tmp_path, node("Conv", 2, **attributes), (3, 4, 10, 12), weights)
    assert found == expected


def test_a_transposed_convolution_counts_its_input(tmp_path: Path):
    # Each of 2 x 4 x 5 x 5 values is multiplied with 6 channels of 2 x 2.
    found = operations(
        tmp_path, node("ConvTranspose", 2, strides=[2, 2]), (2, 4, 5, 5), (4, 6, 2, 2)
    )
    assert found == 2 * (2 * 4 * 5 * 5) * (6 * 2 * 2)


def test_a_product_of_matrices_is_counted_for_every_batch(tmp_path: Path):
    # [2, 3] products of [5, 7] with [7, 11].
    found = operations(tmp_path, node("MatMul", 2), (2, 3, 5, 7), (3, 7, 11))
    assert found == 2 * (2 * 3) * 5 * 7 * 11


@pytest.mark.parametrize("transposed_a", [0, 1])
@pytest.mark.parametrize("transposed_b", [0, 1])
def test_gemm_whichever_side_is_transposed(tmp_path: Path, transposed_a: int, transposed_b: int):
    a = (7, 5) if transposed_a else (5, 7)
    b = (11, 7) if transposed_b else (7, 11)
    gemm = node("Gemm", 3, transA=transposed_a, transB=transposed_b)
    assert operations(tmp_path, gemm, a, b, (11,)) == 2 * 5 * 7 * 11


def test_attention_over_other_positions(tmp_path: Path):
    # 2 batches; 6 positions ask 9; scores over a width of 8, values of width 16.
    attention = node("MultiHeadAttention", 3, "com.microsoft", num_heads=4)
    found = operations(tmp_path, attention, (2, 6, 8), (2, 9, 8), (2, 9, 16))
    assert found == 2 * (2 * 6 * 9 * 8) + 2 * (2 * 6 * 9 * 16)


def test_what_is_no_product_counts_nothing(tmp_path: Path):
    assert operations(tmp_path, node("Relu", 1), (4, 4)) == 0


def test_the_shipped_bundle_has_the_operations_that_its_layers_say():
    engines = flops.of_engines(open_bundle())
    known = {
        **{"conditioner": 0.08, "denoiser": 1.70, "decoder": 0.53, "feranno": 0.89},
        **{"classifier.dense": 0.05, "classifier.residual": 0.04},
    }
    assert {name: round(engines[name] / 1e9, 2) for name in known} == known
    calls = {"conditioner": 1, "denoiser": 8, "decoder": 1, "feranno": 1}
    stages = flops.of_stages(engines, calls)
    assert stages is not None and stages["denoise"] == 8 * engines["denoiser"]
    assert sum(stages.values()) / 1e9 == pytest.approx(14.2, abs=0.05)


def test_a_stage_has_the_operations_of_every_engine_that_it_calls():
    made = {"conditioner": 8, "denoiser": 4, "denoiser.conditional": 2, "decoder": 3, "feranno": 9}
    calls = {
        "conditioner": 0.5,
        "denoiser": 3,
        "denoiser.conditional": 5,
        "decoder": 1,
        "feranno": 1,
    }
    assert flops.of_stages(made, calls) == {"condition": 4, "denoise": 22, "decode": 3}
    assert flops.of_stages(made, {"denoiser.distilled": 4}) is None
