"""A CUDA engine that misses a fusion or works on the host is refused, and the node is named."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("onnx", reason="the build side needs synfer-rt[export]")
import numpy as np
import onnx
import onnx_ir as ir
from onnx import numpy_helper, parser

from synfer_rt.errors import UserError
from synfer_rt.export.cuda.engine import cuda_engine
from synfer_rt.export.cuda.gates import check_kernels

HEADER = '<ir_version: 10, opset_import: ["" : 21]>\n'


def refusal(folder: Path, graph: str, **constants: np.ndarray) -> str:
    """What is said of an encoder with this graph."""
    model = parser.parse_model(HEADER + graph)
    for i, node in enumerate(model.graph.node):
        node.name = f"{node.op_type.lower()}_{i}"
    model.graph.initializer.extend(numpy_helper.from_array(a, n) for n, a in constants.items())
    source, target = folder / "encoder.onnx", folder / "encoder.cuda.onnx"
    onnx.save(model, source)
    with pytest.raises(UserError) as error:
        cuda_engine(source, target, "encoder")
    assert not target.exists()
    return str(error.value)


def test_group_norm_of_another_rank(tmp_path: Path) -> None:
    said = refusal(
        tmp_path,
        """test (float[B,4,2,2,2] x) => (float[B,4,2,2,2] y) {
          y = GroupNormalization <num_groups = 2> (x, scale, bias)
        }""",
        scale=np.ones(4, "f4"),
        bias=np.ones(4, "f4"),
    )
    assert "In encoder, GroupNormalization groupnormalization_0 was not fused" in said


@pytest.mark.parametrize(("groups", "channels"), [(2, 6), (1, 514)])
def test_groups_that_the_kernel_does_not_take(tmp_path: Path, groups: int, channels: int) -> None:
    said = refusal(
        tmp_path,
        f"""test (float[B,{channels},2,2] x) => (float[B,{channels},2,2] y) {{
          y = GroupNormalization <num_groups = {groups}> (x, scale, bias)
        }}""",
        scale=np.ones(channels, "f4"),
        bias=np.ones(channels, "f4"),
    )
    assert f"groupnormalization_0 has {channels // groups}" in said


def test_attention_that_is_written_in_another_way(tmp_path: Path) -> None:
    said = refusal(
        tmp_path,
        """test (float[B,4,8,2] q, float[B,4,2,8] k, float[B,4,8,2] v, float[B,4,8,8] mask)
            => (float[B,4,8,2] y) {
          scores = MatMul (q, k)
          masked = Add (scores, mask)
          weights = Softmax <axis = -1> (masked)
          y = MatMul (weights, v)
        }""",
    )
    assert "Softmax softmax_2 is attention that was not fused" in said


def test_an_operator_without_a_kernel_for_its_type(tmp_path: Path) -> None:
    said = refusal(
        tmp_path,
        """test (int64[B,4] x) => (int64[B] y) {
          y = ArgMax <axis = 1, keepdims = 0> (x)
        }""",
    )
    assert "ArgMax argmax_0 has no CUDA kernel for int64" in said


def test_an_operator_without_any_kernel(tmp_path: Path) -> None:
    said = refusal(tmp_path, "test (float[B,4] x) => (float[B,4] y) { y = Tan (x) }")
    assert "Tan tan_0 has no CUDA kernel" in said


def test_an_output_whose_size_depends_on_values(tmp_path: Path) -> None:
    said = refusal(tmp_path, "test (float[B,4] x) => (int64[2,N] y) { y = NonZero (x) }")
    assert "NonZero nonzero_0 has no CUDA kernel" in said


def test_arithmetic_with_sizes(tmp_path: Path) -> None:
    said = refusal(
        tmp_path,
        """test (float[B,4,h,w] x) => (float[N,4,M] y) {
          sizes = Shape (x)
          one = Constant <value_ints = [1]> ()
          more = Add (sizes, one)
          y = Tile (x, more)
        }""",
    )
    assert "Shape shape_0 computes with sizes on the host, in Add" in said


def test_a_shape_over_which_transposes_are_moved() -> None:
    model = parser.parse_model(
        HEADER
        + """test (float[B,4,h,w] x, float[M,8] z) => (float[B,4,h,w] y) {
          relu = Relu (x)
          sizes = Shape (relu)
          y = Reshape (z, sizes)
        }"""
    )
    with pytest.raises(UserError, match="Shape sizes becomes arithmetic on the host"):
        check_kernels(ir.from_proto(model), "encoder")


def test_sizes_that_are_computed_on_the_gpu(tmp_path: Path) -> None:
    said = refusal(
        tmp_path,
        """test (float[B,4] x, int64[2] shape) => (float[M,N] y) {
          twice = Add (shape, shape)
          y = Reshape (x, twice)
        }""",
    )
    assert "Reshape reshape_1 takes a size from the GPU" in said


@pytest.mark.parametrize(("axis", "parts"), [(1, 5), (-2, 2)])
def test_a_split_into_unequal_parts(tmp_path: Path, axis: int, parts: int) -> None:
    sizes = [2 * i + 2 for i in range(parts)]
    shape = "B,{}" if axis == 1 else "B,{},4"
    names = [f"y{i}" for i in range(parts)]
    outputs = ", ".join(f"float[{shape.format(n)}] {y}" for n, y in zip(sizes, names, strict=True))
    said = refusal(
        tmp_path,
        f"""test (float[{shape.format(sum(sizes))}] x) => ({outputs}) {{
          sizes = Constant <value_ints = {sizes}> ()
          {", ".join(names)} = Split <axis = {axis}> (x, sizes)
        }}""",
    )
    assert "Split split_1 copies the sizes of its parts from the host" in said


def test_a_product_that_repeats_its_left_side() -> None:
    graph = "test (float[4,5] a, float[B,5,8] b) => (float[B,4,8] y) { y = MatMul (a, b) }"
    with pytest.raises(UserError, match="MatMul y copies the addresses of its factors"):
        check_kernels(ir.from_proto(parser.parse_model(HEADER + graph)), "encoder")
