"""Engines with the same weights keep them once, and compute what they did."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from synfer_rt.export.onnx import shared_weights
from synfer_rt.export.onnx.shared_weights import copy_with_weights, data_files, share_weights

SHAPE = (32, 32)


def engine(path: Path, *seeds: int) -> Path:
    """A chain of matrix products; the same seed is the same matrix."""
    names = ["x", *(f"y{i}" for i in range(len(seeds)))]
    nodes = [
        helper.make_node("MatMul", [names[i], f"w{i}"], [names[i + 1]]) for i in range(len(seeds))
    ]
    weights = [np.random.default_rng(seed).standard_normal(SHAPE, np.float32) for seed in seeds]
    graph = helper.make_graph(
        nodes,
        path.stem,
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["B", 32])],
        [helper.make_tensor_value_info(names[-1], TensorProto.FLOAT, ["B", 32])],
        [numpy_helper.from_array(w, f"w{i}") for i, w in enumerate(weights)],
    )
    opsets = [helper.make_opsetid("", 21)]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=10), path)
    return path


def result(path: Path) -> np.ndarray:
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return np.asarray(session.run(None, {"x": np.ones((2, 32), np.float32)})[0])


def test_a_shared_matrix_is_kept_once_and_every_result_stays(tmp_path: Path) -> None:
    owner = engine(tmp_path / "denoiser.onnx", 1, 2)
    others = [engine(tmp_path / "a.onnx", 2, 3), engine(tmp_path / "b.onnx", 4)]
    before = [result(path) for path in (owner, *others)]
    sizes = [path.stat().st_size for path in (owner, *others)]
    assert share_weights([owner, *others]) == 4 * 32 * 32
    for path, wanted in zip((owner, *others), before, strict=True):
        np.testing.assert_array_equal(result(path), wanted)
    data = tmp_path / "denoiser.onnx.data"
    assert data.stat().st_size == 4 * 32 * 32
    smaller = [
        size - path.stat().st_size for size, path in zip(sizes, (owner, *others), strict=True)
    ]
    assert smaller[0] > 3800 and smaller[1] > 3800 and smaller[2] < 100
    assert sorted(tmp_path.iterdir()) == sorted([owner, *others, data])


def test_sharing_twice_changes_nothing(tmp_path: Path) -> None:
    owner, other = engine(tmp_path / "denoiser.onnx", 1), engine(tmp_path / "a.onnx", 1)
    share_weights([owner, other])
    files = {path: path.read_bytes() for path in tmp_path.iterdir()}
    share_weights([owner, other])
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == files


def test_nothing_shared_is_nothing_done(tmp_path: Path) -> None:
    owner, other = engine(tmp_path / "denoiser.onnx", 1), engine(tmp_path / "a.onnx", 2)
    before = owner.read_bytes()
    assert share_weights([owner, other]) == 0
    assert owner.read_bytes() == before
    assert not (tmp_path / "denoiser.onnx.data").exists()


def test_several_share_in_the_file_of_the_first_that_has_it(tmp_path: Path) -> None:
    paths = [
        engine(tmp_path / f"{i}.onnx", *seeds) for i, seeds in enumerate([(1, 2), (2, 3), (3,)])
    ]
    before = [result(path) for path in paths]
    assert share_weights(paths) == 2 * 4 * 32 * 32
    assert [data_files(path) for path in paths] == [
        {"0.onnx.data"},
        {"0.onnx.data", "1.onnx.data"},
        {"1.onnx.data"},
    ]
    for path, wanted in zip(paths, before, strict=True):
        np.testing.assert_array_equal(result(path), wanted)


def test_a_copy_has_its_weights_with_it(tmp_path: Path) -> None:
    owner, other = engine(tmp_path / "denoiser.onnx", 1), engine(tmp_path / "a.onnx", 1, 2)
    wanted = result(other)
    share_weights([owner, other])
    (tmp_path / "elsewhere").mkdir()
    copy = tmp_path / "elsewhere" / "a.onnx"
    copy_with_weights(other, copy)
    assert data_files(other) and not data_files(copy)
    np.testing.assert_array_equal(result(copy), wanted)


def test_large_weights_that_are_not_shared_stay_beside_the_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shared_weights, "INLINE_BYTES", 4000)
    owner, other = engine(tmp_path / "denoiser.onnx", 1), engine(tmp_path / "a.onnx", 1, 2)
    wanted = result(other)
    share_weights([owner, other])
    assert data_files(other) == {"denoiser.onnx.data", "a.onnx.data"}
    np.testing.assert_array_equal(result(other), wanted)
    (tmp_path / "elsewhere").mkdir()
    copy_with_weights(other, tmp_path / "elsewhere" / "a.onnx")
    assert data_files(tmp_path / "elsewhere" / "a.onnx") == {"a.onnx.data"}
    np.testing.assert_array_equal(result(tmp_path / "elsewhere" / "a.onnx"), wanted)
