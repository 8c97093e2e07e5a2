"""Plans are compiled ahead of time, on any machine, and no failure of a builder is a traceback."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("onnx", reason="the build side needs synfer-rt[export]")
pytest.importorskip("tensorrt_rtx", reason="plans need `pip install tensorrt-rtx`")
import onnx
import tensorrt_rtx as trt
from onnx import TensorProto, helper

from synfer_rt.bundle import Bundle, open_bundle
from synfer_rt.bundle.engine_specs import EngineSpec
from synfer_rt.errors import UserError
from synfer_rt.export.tensorrt import compile
from synfer_rt.export.tensorrt.compile import Compiled, check_options, compile_plan
from tests import tiny_bundle as tiny

CAPABILITIES = ("sm80", "sm86", "sm89", "sm120")
BATCH = (1, 4, 64)
QUICK = ("denoiser", "decoder")
"""Engines that every run of the tests compiles; the others are left to `-m slow`."""


def halves(bundle: Bundle) -> dict[str, EngineSpec]:
    """The engines whose plans compute in float16: all but the guides."""
    return {name: e for name, e in bundle.engines.items() if not name.startswith("guide.")}


def examples(bundle: Bundle) -> dict[str, dict[str, np.ndarray]]:
    """Inputs of every engine, of two images; the conditioning is what the conditioner makes."""
    import onnxruntime

    draw = np.random.default_rng(0)
    given: dict[str, dict[str, np.ndarray]] = {}
    for name, engine in halves(bundle).items():
        shapes = {t.name: [2 if n == "B" else int(n) for n in t.shape] for t in engine.inputs}
        given[name] = {key: draw.random(shape, np.float32) for key, shape in shapes.items()}
    texts = ["", "a photo of a smiling woman", "", "an old man"]
    given["conditioner"]["tokens"] = bundle.tokenize(texts).reshape(2, 2, -1)
    path = bundle.path / bundle.engines["conditioner"].file
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    conditioning = session.run(names, given["conditioner"])
    given["denoiser"] |= dict(zip(names, map(np.asarray, conditioning), strict=True))
    given["denoiser"]["timestep"] = np.array(500, np.float32)
    return given


def save_shared_query(folder: Path) -> Path:
    """Two Attention operators of opset 23 on one query: TensorRT-RTX 1.7 dies of it."""
    half, shape = TensorProto.FLOAT16, ["B", 2, 8, 16]
    inputs = [helper.make_tensor_value_info(n, half, shape) for n in ("q", "k", "v", "k2", "v2")]
    nodes = [
        helper.make_node("Attention", ["q", "k", "v"], ["a"]),
        helper.make_node("Attention", ["q", "k2", "v2"], ["b"]),
        helper.make_node("Add", ["a", "b"], ["o"]),
    ]
    return save(folder, 23, nodes, inputs, [helper.make_tensor_value_info("o", half, shape)])


def save_unknown(folder: Path) -> Path:
    """An operator that no library knows."""
    x, y = (helper.make_tensor_value_info(n, TensorProto.FLOAT, ["B", 4]) for n in "xy")
    return save(folder, 21, [helper.make_node("Teleport", ["x"], ["y"])], [x], [y])


def save(folder: Path, opset: int, nodes: list, inputs: list, outputs: list) -> Path:
    graph = helper.make_graph(nodes, "g", inputs, outputs)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=10)
    onnx.save(model, folder / "bad.onnx")
    return folder / "bad.onnx"


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """Some of synfer-mini's plans in float16: the directory and the manifest entries."""
    out, given = tmp_path_factory.mktemp("plans"), examples(open_bundle())
    return out, {name: compile_mini(name, out, "fp16", example=given[name]).entry for name in QUICK}


def compile_mini(name: str, out: Path, precision: str, **options: Any) -> Compiled:
    """The plan of an engine of synfer-mini for CAPABILITIES and BATCH."""
    bundle = open_bundle()
    file, target = bundle.path / bundle.engines[name].file, "tensorrt-rtx"
    log = out / "build.log"
    return compile_plan(name, file, out, target, CAPABILITIES, BATCH, precision, log, **options)


@pytest.mark.parametrize(
    "names", [QUICK, pytest.param(tuple(halves(open_bundle())), marks=pytest.mark.slow)]
)
def test_every_engine_of_synfer_mini_compiles(names: tuple[str, ...], built: tuple) -> None:
    (out, entries), given = built, examples(open_bundle())
    entries = entries | {
        name: compile_mini(name, out, "fp16", example=given[name]).entry
        for name in names
        if name not in entries
    }
    for name, entry in entries.items():
        assert entry["file"] == f"tensorrt-rtx/{name}.plan"
        assert (out / entry["file"]).stat().st_size > 100_000
    assert sorted(file.suffix for file in (out / "tensorrt-rtx").iterdir()) == [".plan"] * len(
        entries
    )


@pytest.mark.parametrize(
    "form",
    [
        "latent",
        pytest.param("text-latent", marks=pytest.mark.slow),
        pytest.param("text", marks=pytest.mark.slow),
    ],
)
def test_every_guide_of_synfer_mini_compiles(form: str, tmp_path: Path) -> None:
    made = compile_mini(f"guide.{form}", tmp_path, "fp32")
    assert (tmp_path / made.entry["file"]).stat().st_size > 10_000
    assert made.seconds > 0 and (made.peak_bytes or 1) > 0


def test_the_entry_says_where_a_plan_runs(built: tuple) -> None:
    _, entries = built
    for entry in entries.values():
        assert entry["version"] == trt.__version__
        assert entry["compute_capabilities"] == list(CAPABILITIES)
        assert entry["precision"] == "fp16"


def test_the_profiles_are_the_interface_at_each_batch(built: tuple) -> None:
    _, entries = built
    engines = open_bundle().engines
    for name, entry in entries.items():
        assert entry["profiles"] == {
            tensor.name: {
                kind: [batch if n == "B" else n for n in tensor.shape]
                for kind, batch in zip(("min", "opt", "max"), BATCH, strict=True)
            }
            for tensor in engines[name].inputs
        }


def test_free_heights_and_widths_have_the_whole_range(tmp_path: Path) -> None:
    sizes = {"min": 16, "max": 48, "multiple_of": 8}
    bundle = tiny.build(tmp_path / "free", sizes=sizes)
    assert bundle.sizes is not None
    axes = bundle.sizes.axes(bundle.image_size, (8, 8))
    entries = {
        name: compile_one(tmp_path, name, bundle.path / f"{name}.onnx", "fp32", axes=axes)
        for name in ("decoder", "classifier.small")
    }
    profiles = {name: next(iter(entry["profiles"].values())) for name, entry in entries.items()}
    assert profiles == {
        "decoder": {"min": [1, 4, 4, 4], "opt": [2, 4, 8, 8], "max": [4, 4, 12, 12]},
        "classifier.small": {"min": [1, 3, 16, 16], "opt": [2, 3, 32, 32], "max": [4, 3, 48, 48]},
    }


def test_float16_is_held_against_float32(built: tuple) -> None:
    _, entries = built
    for entry in entries.values():
        assert 0 < entry["parity"]["max_relative_error"] < 2e-2 == entry["parity"]["tolerance"]


def test_a_plan_computes_in_float16(built: tuple) -> None:
    """The denoiser's weights are 44 MB in float32; a plan has kernels besides."""
    out, entries = built
    assert (out / entries["denoiser"]["file"]).stat().st_size < 42e6


def test_the_log_has_what_the_library_said(built: tuple) -> None:
    log = (built[0] / "build.log").read_text()
    assert "=== denoiser for tensorrt-rtx sm80 sm86 sm89 sm120" in log
    assert "Engine generation completed" in log


def test_float16_that_costs_too_much_is_refused(tmp_path: Path) -> None:
    weight = helper.make_tensor("w", TensorProto.FLOAT, [4, 4], [1000.0] * 16)
    x, y = (helper.make_tensor_value_info(n, TensorProto.FLOAT, ["B", 4]) for n in "xy")
    nodes = [helper.make_node("MatMul", ["x", "w"], ["m"]), helper.make_node("Relu", ["m"], ["r"])]
    nodes.append(helper.make_node("MatMul", ["r", "w"], ["y"]))
    graph = helper.make_graph(nodes, "g", [x], [y], [weight])
    opsets = [helper.make_opsetid("", 21)]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=10), tmp_path / "x.onnx")
    example = {"x": np.full((1, 4), 1000, np.float32)}
    with pytest.raises(UserError, match=r'large: in float16 it differs by .*precision="fp32"'):
        compile_one(tmp_path, "large", tmp_path / "x.onnx", "fp16", example=example)


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (save_shared_query, r"the builder crashed \(SIGSEGV\)"),
        (save_unknown, "Teleport"),
    ],
)
def test_a_builder_that_fails_is_one_sentence_with_the_log(
    tmp_path: Path, make: Any, reason: str
) -> None:
    with pytest.raises(UserError, match=f"did not compile the bad: .*{reason}.*; the log is") as e:
        compile_one(tmp_path, "bad", make(tmp_path), "fp32")
    assert str(tmp_path / "log" / "build.log") in str(e.value) and "\n" not in str(e.value)
    assert (tmp_path / "log" / "build.log").read_text().startswith("=== bad")
    assert list((tmp_path / "out" / "tensorrt-rtx").iterdir()) == []


@pytest.mark.parametrize(
    ("here", "asked", "found"),
    [
        (None, [], ["sm86", "sm89", "sm120"]),
        ("sm80", [], ["sm80"]),
        ("sm90", [], ["sm86", "sm89", "sm120"]),  # a Hopper, which TensorRT-RTX does not know
        ("sm80", ["ada"], ["sm89"]),
        (None, ["ampere", "sm89", "sm86"], ["sm80", "sm86", "sm89"]),
        (None, ["turing", "blackwell"], ["sm75", "sm120", "sm121"]),
    ],
)
def test_plans_are_for_the_gpus_asked_for_the_one_here_or_the_usual(
    monkeypatch: pytest.MonkeyPatch, here: str | None, asked: list[str], found: list[str]
) -> None:
    monkeypatch.setattr(compile, "_capability_here", lambda: here)
    assert list(check_options("tensorrt-rtx", asked, BATCH, "fp16")) == found


def test_every_family_is_one_that_the_library_knows() -> None:
    members = [gpu.upper() for family in compile.FAMILIES.values() for gpu in family]
    library: Any = trt
    assert sorted(members) == sorted(n for n in library.ComputeCapability.__members__ if "SM" in n)


def test_a_capability_that_the_library_lacks_is_refused() -> None:
    with pytest.raises(UserError, match=r"does not compile for sm90, only for .*sm89"):
        check_options("tensorrt-rtx", ["sm89", "sm90"], BATCH, "fp16")


@pytest.mark.parametrize(
    ("target", "capabilities", "batch", "precision", "sentence"),
    [
        ("openvino", ["sm89"], BATCH, "fp16", "`target` of a plan must be"),
        (
            "tensorrt-rtx",
            ["8.9"],
            BATCH,
            "fp16",
            r"must be like sm89 .*, or one of turing, .*'8\.9'",
        ),
        ("tensorrt-rtx", ["sm89"], (1, 8, 4), "fp16", "`batch` must be .*got 1, 8 and 4"),
        ("tensorrt-rtx", ["sm89"], (0, 1, 1), "fp16", "`batch` must be .*got 0, 1 and 1"),
        ("tensorrt-rtx", ["sm89"], BATCH, "int8", "a bundle of their own"),
    ],
)
def test_options_that_cannot_be_are_refused_before_anything_is_built(
    target: str, capabilities: list[str], batch: Any, precision: str, sentence: str
) -> None:
    with pytest.raises(UserError, match=sentence):
        check_options(target, capabilities, batch, precision)


def test_a_library_that_is_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "tensorrt", None)
    with pytest.raises(UserError, match="run `pip install tensorrt`"):
        check_options("tensorrt", [], BATCH, "fp16")


@pytest.mark.slow
@pytest.mark.skipif("SYNFER_SD15_DENOISER" not in os.environ, reason="needs SYNFER_SD15_DENOISER")
def test_a_stable_diffusion_denoiser_compiles(tmp_path: Path) -> None:
    """SYNFER_SD15_DENOISER is the denoiser.onnx of a bundle of Stable Diffusion 1.5 size."""
    file = Path(os.environ["SYNFER_SD15_DENOISER"])
    entry = compile_one(tmp_path, "denoiser", file, "fp16")
    size = (tmp_path / "out" / entry["file"]).stat().st_size
    assert 1.6e9 < size < 2e9


def compile_one(
    folder: Path, name: str, file: Path, precision: str, **options: Any
) -> dict[str, Any]:
    """The manifest's entry of a plan for one GPU and few images."""
    log, out = folder / "log" / "build.log", folder / "out"
    batch = (1, 2, 4)
    target = "tensorrt-rtx"
    made = compile_plan(name, file, out, target, ["sm89"], batch, precision, log, **options)
    return made.entry
