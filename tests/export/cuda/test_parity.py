"""The comparison of a CUDA engine with its engine sees every kind of difference."""

from __future__ import annotations

import math
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

pytest.importorskip("onnx_ir", reason="the build side needs synfer-rt[export]")

from synfer_rt.bundle import Bundle, open_bundle
from synfer_rt.errors import UserError
from synfer_rt.export.cuda.engine import cuda_engine
from synfer_rt.export.cuda.parity import max_relative_error
from tests import tiny_bundle as tiny


@pytest.fixture
def bundle(tiny_bundle: Bundle, tmp_path: Path) -> Bundle:
    return open_bundle(shutil.copytree(tiny_bundle.path, tmp_path / "bundle"))


def error(bundle: Bundle, name: str, change: Callable[[onnx.ModelProto], object]) -> float:
    """The error of a CUDA engine in float32 after a change to its graph."""
    target = bundle.path / f"{name}.cuda.onnx"
    cuda_engine(bundle.path / f"{name}.onnx", target, name, "fp32")
    model = onnx.load(target)
    change(model)
    onnx.save(model, target)
    before = sorted(bundle.path.iterdir())
    found = max_relative_error(bundle, name, target)
    assert sorted(bundle.path.iterdir()) == before
    return found


def replace_output(model: onnx.ModelProto, output: str, op: str, operand: np.ndarray) -> None:
    """Let `output` be what it was, combined with `operand`."""
    for node in model.graph.node:
        node.output[:] = [f"{output}.before" if name == output else name for name in node.output]
        node.input[:] = [f"{output}.before" if name == output else name for name in node.input]
    model.graph.initializer.append(numpy_helper.from_array(operand, "operand"))
    model.graph.node.append(helper.make_node(op, [f"{output}.before", "operand"], [output]))


@pytest.mark.parametrize("name", ["conditioner", "denoiser", "decoder", "classifier.small"])
def test_the_same_graph_differs_by_rounding_alone(bundle: Bundle, name: str) -> None:
    assert error(bundle, name, lambda model: None) < 1e-5


def test_an_error_is_relative_to_the_largest_value(bundle: Bundle) -> None:
    def scale(model: onnx.ModelProto) -> None:
        replace_output(model, "next_latents", "Mul", np.array(1.25, np.float32))

    assert error(bundle, "denoiser", scale) == pytest.approx(0.25, rel=1e-4)


def test_another_row_of_the_tables_is_seen(bundle: Bundle) -> None:
    def first_row(model: onnx.ModelProto) -> None:
        zero = numpy_helper.from_array(np.array(0, np.int64), "zero")
        model.graph.initializer.append(zero)
        for node in model.graph.node:
            if node.op_type == "Gather" and list(node.input) == ["coefficients", "step"]:
                node.input[1] = "zero"

    assert error(bundle, "denoiser", first_row) > 0.1


def test_another_next_step_is_seen(bundle: Bundle) -> None:
    def skip(model: onnx.ModelProto) -> None:
        replace_output(model, "next_step", "Add", np.array(1, np.int64))

    assert error(bundle, "denoiser", skip) == pytest.approx(1 / 2)


def test_pixels_and_soundness_are_compared(bundle: Bundle) -> None:
    def invert(model: onnx.ModelProto) -> None:
        replace_output(model, "pixels", "BitwiseXor", np.array(255, np.uint8))

    def doubt(model: onnx.ModelProto) -> None:
        replace_output(model, "sound", "Xor", np.array(True))

    assert error(bundle, "decoder", invert) > 0.3
    assert error(bundle, "decoder", doubt) == 1


def test_nan_and_another_shape_are_no_small_errors(bundle: Bundle) -> None:
    def divide(model: onnx.ModelProto) -> None:
        replace_output(model, "probabilities", "Mul", np.array(np.nan, np.float32))

    def cut(model: onnx.ModelProto) -> None:
        replace_output(model, "probabilities", "Gather", np.array([0], np.int64))

    assert math.isnan(error(bundle, "classifier.small", divide))
    assert math.isinf(error(bundle, "classifier.small", cut))


def test_a_bundle_of_free_size_is_compared_at_another_size_too(
    tiny_bundle: Bundle, tmp_path: Path
) -> None:
    free = tiny.build(tmp_path / "free", sizes={"min": 16, "max": 48, "multiple_of": 8})
    target = free.path / "decoder.cuda.onnx"
    cuda_engine(free.path / "decoder.onnx", target, "decoder", "fp32")
    assert max_relative_error(free, "decoder", target) < 1e-5
    shutil.copyfile(tiny_bundle.path / "decoder.onnx", free.path / "fixed.onnx")  # same weights
    cuda_engine(free.path / "fixed.onnx", target, "decoder", "fp32")
    with pytest.raises(UserError, match=r"cannot run decoder\.cuda\.onnx \(.*invalid dimensions"):
        max_relative_error(free, "decoder", target)
