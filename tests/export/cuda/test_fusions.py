"""Each rewriting for CUDA computes what the plain operators compute."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise
from pathlib import Path

import pytest

pytest.importorskip("onnx", reason="the build side needs synfer-rt[export]")
import numpy as np
import onnx
import onnxruntime
from onnx import numpy_helper, parser

from synfer_rt.export.cuda.engine import cuda_engine
from synfer_rt.export.cuda.reference import write_reference
from synfer_rt.export.networks.resizing import resize

HEADER = '<ir_version: 10, opset_import: ["" : 21]>\n'
TOLERANCES = {"fp32": 2e-5, "fp16": 1e-2}

Arrays = dict[str, np.ndarray]


def drawn(*shape: int) -> np.ndarray:
    return np.random.default_rng(len(shape)).standard_normal(shape).astype(np.float32)


def run(file: Path, inputs: Arrays) -> list[np.ndarray]:
    session = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
    return [np.asarray(value) for value in session.run(None, dict(inputs))]


def rewritten(
    folder: Path, graph: str, inputs: Arrays, precision: str = "fp32", /, **constants: np.ndarray
) -> Counter[str]:
    """The operators of the CUDA engine of an encoder with this graph, which is compared with it."""
    model = parser.parse_model(HEADER + graph)
    model.graph.initializer.extend(numpy_helper.from_array(a, n) for n, a in constants.items())
    source, target, reference = (folder / f"encoder{end}.onnx" for end in ("", ".cuda", ".cpu"))
    onnx.save(model, source)
    cuda_engine(source, target, "encoder", precision)
    write_reference(target, reference)
    for wanted, found in zip(run(source, inputs), run(reference, inputs), strict=True):
        assert found.dtype == wanted.dtype and found.shape == wanted.shape
        assert np.abs(found - wanted).max() <= TOLERANCES[precision] * np.abs(wanted).max()
    return Counter(node.op_type for node in onnx.load(target).graph.node)


ATTENTION = """
attention (float[B,{queries},8] q, float[B,{keys},8] k, float[B,{keys},8] v)
    => (float[B,{queries},8] y) {{
  queries = Reshape (q, query_heads)
  query = Transpose <perm = [0, 2, 1, 3]> (queries)
  keys = Reshape (k, key_heads)
  key = Transpose <perm = [0, 2, 3, 1]> (keys)
  values = Reshape (v, key_heads)
  value = Transpose <perm = [0, 2, 1, 3]> (values)
  product = MatMul (query, key)
  scores = Mul (product, scale)
  {masked}
  weights = Softmax <axis = -1> (masked)
  mixed = MatMul (weights, value)
  merged = Transpose <perm = [0, 2, 1, 3]> (mixed)
  y = Reshape (merged, width)
}}
"""


@pytest.mark.parametrize("mask", ["none", "causal", "other"])
def test_attention(tmp_path: Path, mask: str) -> None:
    queries, keys = 5, 5 if mask == "causal" else 7
    seen = np.tri(queries, keys, dtype=bool)
    if mask == "other":
        seen[:, -1] = True
    bias = np.where(seen, 0, np.finfo(np.float32).min).astype(np.float32)[None, None]
    line = "masked = Identity (scores)" if mask == "none" else "masked = Add (scores, bias)"
    found = rewritten(
        tmp_path,
        ATTENTION.format(queries=queries, keys=keys, masked=line),
        {"q": drawn(3, queries, 8), "k": 2 * drawn(3, keys, 8), "v": drawn(3, keys, 8) + 1},
        query_heads=np.array([-1, queries, 2, 4]),
        key_heads=np.array([-1, keys, 2, 4]),
        width=np.array([-1, queries, 8]),
        scale=np.array(0.3, "f4"),
        **({} if mask == "none" else {"bias": bias}),
    )
    assert found == {"MultiHeadAttention": 1}


@pytest.mark.parametrize("activated", [False, True])
def test_group_norm_of_a_sum_that_is_used_again(tmp_path: Path, activated: bool) -> None:
    activation = (
        "gate = Sigmoid (n)\n normal = Mul (n, gate)" if activated else "normal = Identity (n)"
    )
    found = rewritten(
        tmp_path,
        f"""norm (float[B,4,3,2] x, float[B,4,3,2] r) => (float[B,4,3,2] y) {{
          total = Add (x, r)
          n = GroupNormalization <num_groups = 2, epsilon = 0.1> (total, scale, bias)
          {activation}
          y = Add (normal, total)
        }}""",
        {"x": drawn(3, 4, 3, 2), "r": drawn(3, 4, 3, 2) ** 2},
        scale=drawn(4),
        bias=drawn(4) + 1,
    )
    assert found["SkipGroupNorm"] == 1 and found["Add"] == 1
    assert not found.keys() & {"GroupNormalization", "Sigmoid"}


def test_group_norm_of_a_sum_with_an_embedding(tmp_path: Path) -> None:
    found = rewritten(
        tmp_path,
        """norm (float[B,4,3,2] x, float[B,4] e) => (float[B,4,3,2] y) {
          axes = Constant <value_ints = [2, 3]> ()
          column = Unsqueeze (e, axes)
          total = Add (x, column)
          y = GroupNormalization <num_groups = 2> (total, scale, bias)
        }""",
        {"x": drawn(3, 4, 3, 2), "e": drawn(3, 4)},
        scale=drawn(4),
        bias=drawn(4) + 1,
    )
    assert found == {"SkipGroupNorm": 1, "Transpose": 2}


def test_group_norm_of_sequences(tmp_path: Path) -> None:
    found = rewritten(
        tmp_path,
        """norm (float[B,4,6] x) => (float[B,4,6] y) {
          y = GroupNormalization <num_groups = 2> (x, scale, bias)
        }""",
        {"x": drawn(3, 4, 6)},
        scale=drawn(4),
        bias=drawn(4) + 1,
    )
    assert found["GroupNorm"] == 1


@pytest.mark.parametrize("width", [320, 8])
def test_layer_norm_of_a_sum_and_the_residual_after_it(tmp_path: Path, width: int) -> None:
    found = rewritten(
        tmp_path,
        f"""block (float[B,5,{width}] x, float[B,5,{width}] r) => (float[B,5,{width}] y) {{
          biased = Add (x, before)
          total = Add (biased, r)
          normal = LayerNormalization <epsilon = 0.1> (total, scale, bias)
          moved = Add (normal, after)
          y = Add (moved, total)
        }}""",
        {"x": drawn(3, 5, width), "r": drawn(3, 5, width) ** 2},
        before=drawn(width),
        after=drawn(width) - 1,
        scale=drawn(width) + 2,
        bias=drawn(width) + 1,
    )
    left = {"BiasAdd": 1} if width == 320 else {"Add": 2}
    assert found == {"SkipLayerNormalization": 1, **left}


@pytest.mark.parametrize("width", [2560, 16])
def test_gated_activation(tmp_path: Path, width: int) -> None:
    found = rewritten(
        tmp_path,
        f"""gate (float[B,3,{width}] x) => (float[B,3,{width // 2}] y) {{
          biased = Add (x, bias)
          kept, gate = Split <axis = -1, num_outputs = 2> (biased)
          open = Gelu (gate)
          y = Mul (kept, open)
        }}""",
        {"x": drawn(2, 3, width)},
        bias=drawn(width),
    )
    assert (found == {"BiasSplitGelu": 1}) == (width == 2560)


def test_quick_gelu(tmp_path: Path) -> None:
    found = rewritten(
        tmp_path,
        """gelu (float[B,6] x) => (float[B,6] y) {
          scaled = Mul (x, factor)
          gate = Sigmoid (scaled)
          y = Mul (x, gate)
        }""",
        {"x": drawn(4, 6)},
        factor=np.array(1.702, "f4"),
    )
    assert found == {"QuickGelu": 1}


def test_batch_norm(tmp_path: Path) -> None:
    found = rewritten(
        tmp_path,
        """norm (float[B,4,3,2] x) => (float[B,4,3,2] y) {
          y = BatchNormalization <epsilon = 0.1> (x, scale, bias, mean, variance)
        }""",
        {"x": drawn(3, 4, 3, 2)},
        scale=drawn(4),
        bias=drawn(4) + 1,
        mean=drawn(4) - 1,
        variance=drawn(4) ** 2,
    )
    assert found == {"Mul": 1, "Add": 1}


@pytest.mark.parametrize("kind", ["largest token", "first end token"])
def test_the_state_of_the_end_token(tmp_path: Path, kind: str) -> None:
    """It is at the first of the largest numbers, so at the first position if none is an end."""
    tokens = np.array([[5, 49407, 7, 49407], [9, 9, 3, 9], [1, 2, 3, 49407], [0, 0, 0, 0]])
    numbers = "Cast <to = 6> (tokens)"
    if kind == "first end token":
        numbers = "Cast <to = 6> (is_end)"
    found = rewritten(
        tmp_path,
        f"""pooled (int64[B,4] tokens, float[B,4,3] states) => (float[B,3] y) {{
          is_end = Equal (tokens, end)
          numbers = {numbers}
          place = ArgMax <axis = -1, keepdims = 0> (numbers)
          sizes = Shape <start = 0, end = 1> (tokens)
          count = Squeeze (sizes)
          rows = Range (zero, count, one)
          last = Constant <value_ints = [-1]> ()
          row = Unsqueeze (rows, last)
          column = Unsqueeze (place, last)
          index = Concat <axis = -1> (row, column)
          y = GatherND (states, index)
        }}""",
        {"tokens": tokens, "states": drawn(4, 4, 3)},
        end=np.array(49407),
        zero=np.array(0),
        one=np.array(1),
    )
    assert found["MatMul"] == 1 and not found.keys() & {"ArgMax", "Range", "GatherND", "Shape"}


def test_projections_of_one_tensor_are_one_product(tmp_path: Path) -> None:
    weights = {f"w{i}": drawn(4, 3) + i for i in range(3)} | {"w3": drawn(5, 3)}
    biases = {f"b{i}": drawn(4) + i for i in range(3)} | {"b3": drawn(5)}
    products = "\n".join(f"y{i} = Gemm <transB = 1> (x, w{i}, b{i})" for i in range(4))
    outputs = "float[B,4] y0, float[B,4] y1, float[B,4] y2, float[B,5] y3"
    found = rewritten(
        tmp_path,
        f"projections (float[B,3] x) => ({outputs}) {{ {products} }}",
        {"x": drawn(2, 3)},
        **weights,
        **biases,
    )
    assert found == {"Gemm": 2, "Concat": 2, "Split": 1}


def test_slices_become_splits_without_a_copy(tmp_path: Path) -> None:
    edges = [0, 1, 3, 6, 10, 15, 21]
    numbers = {f"n{i}": np.array([i]) for i in edges}
    slices = "\n".join(
        f"y{i} = Slice (x, n{start}, n{end}, n1)" for i, (start, end) in enumerate(pairwise(edges))
    )
    outputs = ", ".join(f"float[B,{i + 1}] y{i}" for i in range(6))
    found = rewritten(
        tmp_path,
        f"slices (float[B,21] x) => ({outputs}) {{ {slices} }}",
        {"x": drawn(2, 21)},
        **numbers,
    )
    assert found == {"Split": 2}


def test_a_first_row_and_the_rest(tmp_path: Path) -> None:
    found = rewritten(
        tmp_path,
        """rows (float[B,4,3] x) => (float[B,3] first, float[B,3,3] rest) {
          first = Gather <axis = 1> (x, zero)
          rest = Slice (x, one, four, one)
        }""",
        {"x": drawn(2, 4, 3)},
        zero=np.array(0),
        one=np.array([1]),
        four=np.array([4]),
    )
    assert found == {"Split": 1, "Squeeze": 1, "Concat": 1}


@pytest.mark.parametrize("precision", TOLERANCES)
def test_free_sizes_need_no_arithmetic(tmp_path: Path, precision: str) -> None:
    """Rows of pixels and back, a batch that is repeated, and a constant for each sample."""
    found = rewritten(
        tmp_path,
        """free (float[B,4,h,w] x) => (float[N,4,h,w] y) {
          sizes = Shape (x)
          batch = Gather (sizes, i0)
          height = Gather (sizes, i2)
          width = Gather (sizes, i3)
          axis = Constant <value_ints = [1]> ()
          channels = Transpose <perm = [0, 2, 3, 1]> (x)
          pixels = MatMul (channels, kernel)
          area = Mul (height, width)
          flat = Concat <axis = 0> (batch, area, i4)
          rows = Reshape (pixels, flat)
          relu = Relu (rows)
          whole = Concat <axis = 0> (batch, height, width, i4)
          mixed = MatMul (relu, kernel)
          back = Reshape (mixed, whole)
          plain = Transpose <perm = [0, 3, 1, 2]> (back)
          wide = Concat <axis = 0> (batch, i4, axis, axis)
          offsets = Expand (offset, wide)
          image = Add (plain, offsets)
          single = Unsqueeze (image, axis)
          both = Expand (single, twice)
          double = Mul (batch, i2)
          doubled = Concat <axis = 0> (double, i4, height, width)
          y = Reshape (both, doubled)
        }""",
        {"x": drawn(2, 4, 3, 5)},
        precision,
        **{f"i{i}": np.array([i]) for i in (0, 2, 3, 4)},
        twice=np.array([1, 2, 1, 1, 1]),
        offset=drawn(1, 4, 1, 1),
        kernel=drawn(4, 4),
    )
    assert found["Mul"] == 0 and found["Gather"] == 0


@pytest.mark.parametrize("sizes", [(40, 24), ("H", "W")])
def test_a_network_that_resizes_images(tmp_path: Path, sizes: tuple[int | str, ...]) -> None:
    """As one of a fixed and one of free size does, in one axis down and in the other up."""
    nodes, constants = resize("images", "y", sizes, 32)
    found = rewritten(
        tmp_path,
        onnx.printer.to_text(
            onnx.helper.make_graph(
                nodes,
                "network",
                [onnx.helper.make_tensor_value_info("images", 1, ["B", 3, *sizes])],
                [onnx.helper.make_tensor_value_info("y", 1, ["B", 3, 32, 32])],
            )
        ),
        {"images": drawn(2, 3, 40, 24)},
        **constants,
    )
    assert not found.keys() & {"Shape", "Range"} and found["MatMul"] == 2
