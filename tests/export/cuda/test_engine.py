"""The CUDA engines of synfer-mini: fused, in float16, and equal to the engines within float16."""

from __future__ import annotations

import shutil
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("onnx", reason="the build side needs synfer-rt[export]")
import onnx
import onnxruntime
from onnx import TensorProto

from synfer_rt.bundle import open_bundle
from synfer_rt.bundle.cuda import STEP, TABLES
from synfer_rt.export.cuda.engine import cuda_engine
from synfer_rt.export.cuda.reference import write_reference

TOLERANCE = 2e-2
FUSED = {
    "conditioner": {"MultiHeadAttention": 2, "SkipLayerNormalization": 4, "QuickGelu": 2},
    "denoiser": {
        "GroupNorm": 9,
        "SkipGroupNorm": 21,
        "MultiHeadAttention": 14,
        "SkipLayerNormalization": 14,
    },
    "denoiser.conditional": {
        "GroupNorm": 9,
        "SkipGroupNorm": 21,
        "MultiHeadAttention": 14,
        "SkipLayerNormalization": 14,
    },
    "denoiser.distilled": {
        "GroupNorm": 9,
        "SkipGroupNorm": 21,
        "MultiHeadAttention": 14,
        "SkipLayerNormalization": 14,
    },
    "decoder": {"GroupNorm": 12, "SkipGroupNorm": 6, "MultiHeadAttention": 1},
    "encoder": {"GroupNorm": 9, "SkipGroupNorm": 3, "MultiHeadAttention": 1},
    "feranno": {"GroupNorm": 11, "SkipGroupNorm": 20, "MultiHeadAttention": 16},
    "classifier.dense": {"Conv": 13},
    "au-reader": {"Conv": 11},
    "guide.latent": {"Conv": 10},
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of synfer-mini's engines with their CUDA engines beside them."""
    folder, bundle = tmp_path_factory.mktemp("cuda"), open_bundle()
    for file in bundle.path.glob("*.onnx*"):
        shutil.copy(file, folder)
    for name in FUSED:
        cuda_engine(folder / f"{name}.onnx", folder / f"{name}.cuda.onnx", name)
    return folder


def operators(file: Path) -> Counter[str]:
    return Counter(node.op_type for node in onnx.load(file, load_external_data=False).graph.node)


def run(file: Path, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    session = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
    names = [value.name for value in session.get_outputs()]
    found = session.run(None, {value.name: inputs[value.name] for value in session.get_inputs()})
    return {name: np.asarray(value) for name, value in zip(names, found, strict=True)}


def some_inputs(file: Path, batch: int) -> dict[str, np.ndarray]:
    """Latents as noise, in the middle of a trajectory, with guidance of 3."""
    draw = np.random.default_rng(0)
    given: dict[str, np.ndarray] = {}
    for value in onnx.load(file, load_external_data=False).graph.input:
        sizes = [dim.dim_value or batch for dim in value.type.tensor_type.shape.dim]
        given[value.name] = draw.standard_normal(sizes).astype(np.float32)
    given |= {"timestep": np.array(499, np.float32), "guidance": np.full(batch, 3, "f4")}
    return given | {"tokens": draw.integers(0, 80, (batch, 2, 48))}


def in_tables(inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The inputs of one step as a CUDA engine takes them: tables with a single row."""
    given = {TABLES.get(name, name): array for name, array in inputs.items()}
    tables = {TABLES[name]: inputs[name][None] for name in inputs if name in TABLES}
    return {**given, **tables, STEP.name: np.array(0)}


@pytest.mark.parametrize("name", FUSED)
def test_the_shipped_one_is_what_the_code_makes(folder: Path, name: str) -> None:
    """Else `synfer-rt build-engines engines/synfer-mini --target cuda` renews those that ship."""
    file = f"{name}.cuda.onnx"
    assert (folder / file).read_bytes() == (open_bundle().path / file).read_bytes()


@pytest.mark.parametrize("name", FUSED)
def test_attention_and_group_norm_are_fused(folder: Path, name: str) -> None:
    found = operators(folder / f"{name}.cuda.onnx")
    assert {op: found[op] for op in FUSED[name]} == FUSED[name]
    assert not found.keys() & {"GroupNormalization", "ArgMax", "Range", "GatherND"}


@pytest.mark.parametrize("name", FUSED)
@pytest.mark.parametrize("batch", [1, 3])
def test_a_cuda_engine_computes_what_its_engine_does(folder: Path, name: str, batch: int) -> None:
    reference = folder / f"{name}.reference.onnx"
    write_reference(folder / f"{name}.cuda.onnx", reference)
    inputs = some_inputs(folder / f"{name}.onnx", batch)
    wanted, found = run(folder / f"{name}.onnx", inputs), run(reference, in_tables(inputs))
    for key, value in wanted.items():
        assert found[key].dtype == value.dtype
        assert np.abs(found[key] - value).max() <= TOLERANCE * np.abs(value).max()


@pytest.mark.parametrize("name", FUSED)
def test_large_weights_are_stored_once(folder: Path, name: str) -> None:
    model = onnx.load(folder / f"{name}.cuda.onnx", load_external_data=False)
    engine = onnx.load(folder / f"{name}.onnx", load_external_data=False)
    known = {tensor.name for tensor in engine.graph.initializer}
    for tensor in model.graph.initializer:
        if tensor.name in known and len(tensor.raw_data) >= 1024:
            raise AssertionError(f"{tensor.name} is stored twice")


def test_products_are_float16(folder: Path) -> None:
    model = onnx.load(folder / "denoiser.cuda.onnx", load_external_data=False)
    types = {tensor.name: tensor.data_type for tensor in model.graph.initializer}
    weights = {n.input[1] for n in model.graph.node if n.op_type in ("Conv", "MatMul", "Gemm")}
    assert {types[w] for w in weights if w in types} == {TensorProto.FLOAT16}


def test_the_denoiser_has_few_nodes(folder: Path) -> None:
    """ONNX Runtime removes more than a hundred of them: transposes and what it folds."""
    assert operators(folder / "denoiser.cuda.onnx").total() <= 450
    assert operators(folder / "denoiser.cuda.onnx")["Gemm"] == 7  # 15 blocks of 3 widths
