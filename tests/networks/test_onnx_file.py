"""ONNX files read by their bytes, against the package onnx."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper, parser

from synfer_rt.errors import UserError
from synfer_rt.networks import onnx_file
from synfer_rt.networks.weights import SAME, fingerprints, shared

WEIGHT = np.random.default_rng(0).normal(size=(12, 16)).astype("f4")


def model(**weights: onnx.TensorProto) -> onnx.ModelProto:
    made = parser.parse_model("""<ir_version: 8, opset_import: ["" : 17]>
    net (float[B,12] x) => (float[B,16] scores) {
      hidden = MatMul (x, weight)
      scores = Relu (hidden)
    }""")
    for name, tensor in weights.items():
        tensor.name = name
        made.graph.initializer.append(tensor)
    return made


def saved(folder: Path, made: onnx.ModelProto, name: str = "net.onnx") -> onnx_file.OnnxFile:
    (folder / name).write_bytes(made.SerializeToString())
    return onnx_file.read(folder / name)


def in_fields(values: np.ndarray, kind: int) -> onnx.TensorProto:
    """A tensor as numbers in a list rather than as bytes."""
    return helper.make_tensor("", kind, values.shape, values.ravel().tolist())


@pytest.mark.parametrize(
    "tensor",
    [
        numpy_helper.from_array(WEIGHT),
        numpy_helper.from_array(WEIGHT.astype("f8")),
        in_fields(WEIGHT, TensorProto.FLOAT),
        in_fields(WEIGHT, TensorProto.DOUBLE),
    ],
)
def test_weights_are_read_in_every_encoding(tmp_path: Path, tensor: onnx.TensorProto) -> None:
    (found,) = saved(tmp_path, model(weight=tensor)).weights()
    assert np.array_equal(found.astype("f4"), WEIGHT.ravel())


def test_half_precision_is_read_in_every_encoding(tmp_path: Path) -> None:
    half = WEIGHT.astype("f2")
    for tensor in (numpy_helper.from_array(half), in_fields(half, TensorProto.FLOAT16)):
        (found,) = saved(tmp_path, model(weight=tensor)).weights()
        assert np.array_equal(found, half.ravel())


def test_bfloat16_is_read(tmp_path: Path) -> None:
    bits = (WEIGHT.view(np.uint32) >> 16).astype(np.uint16)
    given: list[dict[str, Any]] = [
        {"raw_data": bits.tobytes()},
        {"int32_data": bits.ravel().tolist()},
    ]
    for values in given:
        tensor = TensorProto(data_type=TensorProto.BFLOAT16, dims=WEIGHT.shape, **values)
        (found,) = saved(tmp_path, model(weight=tensor)).weights()
        assert np.allclose(found, WEIGHT.ravel(), rtol=1e-2)


def test_nodes_and_outputs_are_read(tmp_path: Path) -> None:
    file = saved(tmp_path, model(weight=numpy_helper.from_array(WEIGHT)))
    assert [node.operator for node in file.nodes] == ["MatMul", "Relu"]
    assert file.outputs == ("scores",) and file.initializers == {"weight"}
    assert onnx_file.last_product(file) == "x"
    assert onnx_file.values_of(file.nodes) == {"hidden", "scores"}


def test_weights_of_constants_and_inner_graphs_are_found(tmp_path: Path) -> None:
    made = model(weight=numpy_helper.from_array(WEIGHT))
    inner = helper.make_graph([], "inner", [], [], [numpy_helper.from_array(2 * WEIGHT, "inside")])
    made.graph.node.append(helper.make_node("If", ["c"], ["y"], then_branch=inner))
    constant = numpy_helper.from_array(3 * WEIGHT, "")
    made.graph.node.append(helper.make_node("Constant", [], ["z"], value=constant))
    found = sorted(abs(weight).max() for weight in saved(tmp_path, made).weights())
    assert found == pytest.approx([k * abs(WEIGHT).max() for k in (1, 2, 3)])


def test_weights_beside_the_file_are_read_but_none_elsewhere(tmp_path: Path) -> None:
    made, folder = model(weight=numpy_helper.from_array(WEIGHT)), tmp_path / "models"
    folder.mkdir()
    onnx.save(made, folder / "net.onnx", save_as_external_data=True, size_threshold=0)
    (found,) = onnx_file.read(folder / "net.onnx").weights()
    assert np.array_equal(found, WEIGHT.ravel())
    moved = onnx.load(folder / "net.onnx", load_external_data=False)
    (place,) = [e for e in moved.graph.initializer[0].external_data if e.key == "location"]
    (tmp_path / "secret").write_bytes(WEIGHT.tobytes())
    place.value = "../secret"
    with pytest.raises(UserError, match="lie outside"):
        list(saved(folder, moved).weights())


def test_damaged_files_are_refused(tmp_path: Path) -> None:
    whole = model(weight=numpy_helper.from_array(WEIGHT)).SerializeToString()
    file = tmp_path / "net.onnx"
    for content in (b"", b"\xff" * 40, whole[:-30], b"not a model at all"):
        file.write_bytes(content)
        with pytest.raises(UserError, match="is not an ONNX file that can be read"):
            onnx_file.read(file)
    with pytest.raises(UserError, match=r"missing.onnx is not an ONNX file .*No such file"):
        onnx_file.read(tmp_path / "missing.onnx")


def test_an_inner_value_becomes_an_output(tmp_path: Path) -> None:
    file = saved(tmp_path, model(weight=numpy_helper.from_array(WEIGHT)))
    again = onnx.load_from_string(file.with_output("hidden"))
    assert [value.name for value in again.graph.output] == ["scores", "hidden"]
    assert [node.op_type for node in again.graph.node] == ["MatMul", "Relu"]
    long = onnx.load_from_string(file.with_output("n" * 300))
    assert long.graph.output[-1].name == "n" * 300


def test_the_same_weights_are_known_in_other_clothes() -> None:
    own = fingerprints([WEIGHT, np.ones(500)])
    assert len(own) == 1
    for other in (WEIGHT.T, WEIGHT.astype("f2"), WEIGHT.reshape(-1)[::-1].astype("f8")):
        assert shared(own, fingerprints([other.copy(), np.zeros(99)])) == 1
    assert shared(own, fingerprints([WEIGHT + 0.01])) == 0
    larger = fingerprints([WEIGHT, np.random.default_rng(1).normal(size=(40, 40))])
    assert shared(own, larger) == 1 and shared(larger, own) < SAME
    assert shared({}, own) == 0
