"""OpenVINO computes what ONNX Runtime computes, at any batch size, and keeps what it compiled."""

from __future__ import annotations

import importlib
import shutil
import time
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import numpy_helper, parser

from synfer_rt import backends
from synfer_rt.backends import choose, open_engine, openvino, openvino_cache, to_numpy
from synfer_rt.backends.caches import cache_directory
from synfer_rt.backends.choice import runs_on
from synfer_rt.backends.loaded_engines import LoadedEngines
from synfer_rt.backends.openvino import OpenVinoEngine, precision_of, read_model
from synfer_rt.backends.runtimes import computes
from synfer_rt.bundle import Bundle, open_bundle
from synfer_rt.bundle.engine_specs import EngineSpec, RuntimeParity
from synfer_rt.diffusion.solvers import trajectory
from synfer_rt.errors import UserError
from synfer_rt.sampling.sampler import Sampler
from tests.damaged_bundles import rehash
from tests.samples import difference, request

CPU, OPENVINO = "onnxruntime-cpu", "openvino-cpu"
ENGINES = ("conditioner", "denoiser", "decoder", "encoder", "classifier.small")

pytestmark = pytest.mark.skipif(
    not backends.status(OPENVINO).works, reason=backends.status(OPENVINO).reason
)


def inputs(spec: EngineSpec, batch: int, seed: int = 0) -> dict[str, np.ndarray]:
    draws = np.random.default_rng(seed)
    arrays = {}
    for tensor in spec.inputs:
        shape = [batch if size == "B" else int(size) for size in tensor.shape]
        whole = tensor.dtype == "int64"
        values = draws.integers(0, 40, shape) if whole else draws.standard_normal(shape)
        arrays[tensor.name] = np.asarray(values, tensor.dtype)
    return arrays


def open_openvino(bundle: Bundle, name: str) -> OpenVinoEngine:
    engine = open_engine(bundle, name, OPENVINO, 1)
    assert isinstance(engine, OpenVinoEngine)
    return engine


@pytest.mark.usefixtures("in_float32")
@pytest.mark.parametrize("batch", [1, 3, 8])
@pytest.mark.parametrize("name", ENGINES)
def test_every_engine_gives_what_onnxruntime_gives(
    tiny_bundle: Bundle, name: str, batch: int
) -> None:
    given = inputs(tiny_bundle.engines[name], batch)
    wanted = open_engine(tiny_bundle, name, CPU, 1).run(given)
    found = open_engine(tiny_bundle, name, OPENVINO, 1).run(given)
    assert list(found) == list(wanted)
    for output in wanted:
        assert found[output].dtype == wanted[output].dtype
        np.testing.assert_allclose(found[output], wanted[output], rtol=1e-4, atol=1e-4)


def test_the_denoiser_errs_by_no_more_than_bfloat16_rounds(tiny_bundle: Bundle) -> None:
    given = inputs(tiny_bundle.engines["denoiser"], 4)
    found, wanted = (
        open_engine(tiny_bundle, "denoiser", name, 1).run(given)["prediction"]
        for name in (OPENVINO, CPU)
    )
    assert np.linalg.norm(found - wanted) < 2**-6 * np.linalg.norm(wanted)


def test_an_output_of_several_names_has_that_of_the_interface(
    tiny_bundle_path: Path, tmp_path: Path
) -> None:
    copy = Path(shutil.copytree(tiny_bundle_path, tmp_path / "copy"))
    model = onnx.load(copy / "decoder.onnx")
    for node in model.graph.node:
        node.output[:] = ["a" if name == "images" else name for name in node.output]
    for source, target in (("a", "z"), ("z", "images")):
        model.graph.node.append(onnx.helper.make_node("Identity", [source], [target]))
    onnx.save(model, copy / "decoder.onnx")
    rehash(copy, "decoder.onnx")
    bundle = open_bundle(copy)
    given = inputs(bundle.engines["decoder"], 2)
    found, wanted = (open_engine(bundle, "decoder", name, 1).run(given) for name in (OPENVINO, CPU))
    assert list(found) == ["images"]
    np.testing.assert_allclose(found["images"], wanted["images"], atol=1e-5)


def test_one_engine_runs_batches_of_different_sizes_in_turn(tiny_bundle: Bundle) -> None:
    spec = tiny_bundle.engines["decoder"]
    engine, wanted = (open_engine(tiny_bundle, "decoder", name, 1) for name in (OPENVINO, CPU))
    for batch in (2, 5, 2, 1, 7, 5):
        given = inputs(spec, batch, seed=batch)
        np.testing.assert_allclose(
            engine.run(given)["images"], wanted.run(given)["images"], atol=1e-5
        )


def test_an_output_is_the_callers_to_keep(tiny_bundle: Bundle) -> None:
    spec = tiny_bundle.engines["decoder"]
    engine = open_engine(tiny_bundle, "decoder", OPENVINO, 1)
    first = engine.run(inputs(spec, 2, seed=1))["images"]
    before = first.copy()
    engine.run(inputs(spec, 2, seed=2))
    np.testing.assert_array_equal(first, before)


def test_values_go_from_engine_to_engine(tiny_bundle: Bundle) -> None:
    decoder, encoder = (open_engine(tiny_bundle, n, OPENVINO, 1) for n in ("decoder", "encoder"))
    images = decoder.run_on_device(inputs(tiny_bundle.engines["decoder"], 2))["images"]
    mean = to_numpy(encoder.run_on_device({"images": images})["mean"])
    assert mean.shape == (2, 4, 8, 8)


@pytest.mark.usefixtures("in_float32")
def test_a_sample_is_that_of_onnxruntime(tiny_bundle: Bundle) -> None:
    way = trajectory("dpmpp-2m", tiny_bundle.schedule, 4, 0.9, tiny_bundle.prediction_type)
    requests = [request(i) for i in range(7)]
    one, other = (
        Sampler.of(tiny_bundle, name, threads=1).sample(requests, way, 7)
        for name in (CPU, OPENVINO)
    )
    assert all(difference(a, b) <= 2 for a, b in zip(one, other, strict=True))
    assert all(difference(a, b) > 20 for a, b in pairwise(other))


def test_the_solver_computes_in_float32_whatever_the_denoiser_does(tiny_bundle: Bundle) -> None:
    """Coefficients that cancel: in bfloat16 the difference would be lost."""
    engine = open_engine(tiny_bundle, "denoiser", OPENVINO, 1)
    given = inputs(tiny_bundle.engines["denoiser"], 2)
    given["history"][:, 0] = given["latents"] * 1.001
    rows = np.zeros((4, 5), np.float32)
    rows[0, 0], rows[0, 2] = 100, -100
    found = engine.run(given | {"coefficients": rows})["next_latents"]
    np.testing.assert_allclose(found, -0.1 * given["latents"], atol=1e-3)


def test_bfloat16_is_used_where_the_cpu_has_it_and_without_measurement_for_the_denoiser_alone(
    tiny_bundle: Bundle,
) -> None:
    import openvino

    capable = "BF16" in openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    precisions = {name: open_openvino(tiny_bundle, name).precision for name in ENGINES}
    assert precisions.pop("denoiser") == ("bf16" if capable else "f32")
    assert set(precisions.values()) == {"f32"}


def test_what_a_run_computes_in_names_the_engines_that_are_rounded(
    tiny_bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("synfer_rt.backends.openvino.has_bfloat16", lambda: True)
    assert computes(tiny_bundle, OPENVINO)[0] == "bf16"
    rounded = RuntimeParity("1", 1e-3, 0.0, RuntimeParity("1", 0.1, 0.01))
    decoder = replace(tiny_bundle.engines["decoder"], parity_openvino=rounded)
    measured = replace(tiny_bundle, engines={**tiny_bundle.engines, "decoder": decoder})
    assert computes(measured, OPENVINO)[0] == "bf16, bf16 in decoder"


@pytest.mark.parametrize(
    ("name", "error", "precision"),
    [
        ("denoiser", None, "bf16"),
        ("denoiser", 0.1, "bf16"),
        ("denoiser", 0.3, "f32"),
        ("decoder", None, "f32"),
        ("decoder", 0.01, "bf16"),
        ("decoder", 0.3, "f32"),
        ("classifier.small", 0.01, "bf16"),
        ("conditioner", 0.01, "f32"),
    ],
)
def test_an_engine_is_computed_in_bfloat16_where_the_bundle_measured_that_it_may(
    tiny_bundle: Bundle, name: str, error: float | None, precision: str
) -> None:
    rounded = None if error is None else RuntimeParity("1", 0.2, error)
    parity = RuntimeParity("1", 1e-3, 0.0, rounded)
    spec = replace(tiny_bundle.engines[name], parity_openvino=parity)
    assert precision_of(spec, bfloat16=True) == precision
    assert precision_of(spec, bfloat16=False) == "f32"
    assert runs_on(spec, OPENVINO) == OPENVINO
    guide = replace(spec, name="guide.text")
    assert precision_of(guide, bfloat16=True) == "f32"


def test_what_was_compiled_is_loaded_from_the_disk_the_next_time(
    tiny_bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    given = {name: inputs(tiny_bundle.engines[name], 2) for name in ENGINES}
    cold = {name: open_engine(tiny_bundle, name, OPENVINO, 1).run(given[name]) for name in ENGINES}
    directory = cache_directory("openvino", tiny_bundle)
    assert directory is not None
    blobs = {file: file.stat().st_mtime_ns for file in directory.iterdir()}
    assert len(blobs) == len(ENGINES)
    monkeypatch.setattr(openvino, "read_model", None)
    for name in ENGINES:
        warm = open_engine(tiny_bundle, name, OPENVINO, 1).run(given[name])
        for output, values in cold[name].items():
            np.testing.assert_array_equal(warm[output], values)
    assert {file: file.stat().st_mtime_ns for file in directory.iterdir()} == blobs


def test_what_was_compiled_is_for_its_shapes_and_threads_alone(
    tiny_bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    directory = cache_directory("openvino", tiny_bundle)
    assert directory is not None
    spec = tiny_bundle.engines["classifier.small"]
    for count, (batch, threads) in enumerate(((2, 1), (3, 1), (2, 2)), start=1):
        open_engine(tiny_bundle, "classifier.small", OPENVINO, threads).run(inputs(spec, batch))
        assert len(list(directory.iterdir())) == count


def test_a_kept_model_that_does_not_open_is_compiled_again(
    tiny_bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    given = inputs(tiny_bundle.engines["decoder"], 2)
    wanted = open_engine(tiny_bundle, "decoder", OPENVINO, 1).run(given)["images"]
    directory = cache_directory("openvino", tiny_bundle)
    assert directory is not None
    (blob,) = directory.iterdir()
    whole = blob.stat().st_size
    blob.write_text("no model")
    for _ in range(2):
        found = open_engine(tiny_bundle, "decoder", OPENVINO, 1).run(given)["images"]
        np.testing.assert_array_equal(found, wanted)
        assert blob.stat().st_size == whole


def test_nothing_is_kept_that_memory_has_no_place_for(
    tiny_bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(openvino_cache, "free_memory", lambda backend: 1000)
    given = inputs(tiny_bundle.engines["decoder"], 2)
    open_engine(tiny_bundle, "decoder", OPENVINO, 1).run(given)
    directory = cache_directory("openvino", tiny_bundle)
    assert directory is not None
    assert not list(directory.iterdir())


def test_where_nothing_can_be_kept_it_runs_all_the_same(
    tiny_bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    given = inputs(tiny_bundle.engines["decoder"], 2)
    images = open_engine(tiny_bundle, "decoder", OPENVINO, 1).run(given)["images"]
    assert images.shape == (2, 3, 32, 32)


def test_the_threads_are_those_asked_for(tiny_bundle: Bundle) -> None:
    engine = open_openvino(tiny_bundle, "decoder")
    (request,) = engine._compiled(inputs(engine.spec, 2), 1)
    compiled = request.get_compiled_model()
    assert compiled.get_property("INFERENCE_NUM_THREADS") == 1


@pytest.mark.parametrize("data", [b"", b"no protobuf at all", b"\x08\x0a"])
def test_a_corrupt_engine_with_the_right_hash_is_refused(
    tiny_bundle_path: Path, tmp_path: Path, data: bytes
) -> None:
    copy = Path(shutil.copytree(tiny_bundle_path, tmp_path / "copy"))
    (copy / "decoder.onnx").write_bytes(data)
    rehash(copy, "decoder.onnx")
    with pytest.raises(UserError, match=r"decoder.onnx cannot be loaded .*build-engines"):
        open_engine(open_bundle(copy), "decoder", OPENVINO)


def test_inputs_that_do_not_fit_are_reported_in_a_sentence(tiny_bundle: Bundle) -> None:
    engine = open_engine(tiny_bundle, "decoder", OPENVINO, 1)
    with pytest.raises(UserError, match="decoder failed on openvino-cpu"):
        engine.run({"latents": np.zeros((2, 4, 9, 9), np.float32)})


def test_auto_prefers_it_to_onnxruntime_on_a_machine_without_gpu(tiny_bundle: Bundle) -> None:
    if any(s.works for s in backends.statuses() if not s.name.endswith("-cpu")):
        pytest.skip("a GPU works here")
    assert choose("auto", tiny_bundle)[0] == OPENVINO


SHARED = {
    "convolution": (
        (16, 16, 3, 3),
        """gradient (float[B,16,8,8] x) => (float[B,16,8,8] y) {
          weight = Cast <to = 1> (stored)
          forward = Conv <pads = [1, 1, 1, 1]> (x, weight)
          y = ConvTranspose <pads = [1, 1, 1, 1]> (forward, weight)
        }""",
    ),
    "grouped convolution": (
        (16, 8, 3, 3),
        """gradient (float[B,16,8,8] x) => (float[B,16,8,8] y) {
          weight = Cast <to = 1> (stored)
          forward = Conv <pads = [1, 1, 1, 1], group = 2> (x, weight)
          y = ConvTranspose <pads = [1, 1, 1, 1], group = 2> (forward, weight)
        }""",
    ),
    "square matrix": (
        (16, 16),
        """gradient (float[B,16] x) => (float[B,16] y) {
          weight = Cast <to = 1> (stored)
          forward = MatMul (x, weight)
          transposed = Transpose <perm = [1, 0]> (weight)
          y = MatMul (forward, transposed)
        }""",
    ),
    "square matrix of Gemm": (
        (16, 16),
        """gradient (float[B,16] x) => (float[B,16] y) {
          weight = Cast <to = 1> (stored)
          forward = Gemm (x, weight)
          y = Gemm <transB = 1> (forward, weight)
        }""",
    ),
}
"""The shape of a weight, and a graph in which it is used in two ways, as in a gradient."""


@pytest.mark.parametrize("precision", ["float32", "float16"])
@pytest.mark.parametrize("case", SHARED)
def test_products_of_several_kinds_may_share_a_weight(
    tmp_path: Path, case: str, precision: str
) -> None:
    import openvino

    shape, text = SHARED[case]
    model = parser.parse_model(f'<ir_version: 10, opset_import: ["": 21]>\n{text}')
    stored = np.random.default_rng(0).standard_normal(shape).astype(precision)
    model.graph.initializer.append(numpy_helper.from_array(stored, "stored"))
    file = tmp_path / "gradient.onnx"
    onnx.save(model, file)
    core = openvino.Core()
    compiled = core.compile_model(
        read_model(file, core), "CPU", {"INFERENCE_PRECISION_HINT": "f32"}
    )
    size = [2, *(d.dim_value for d in model.graph.input[0].type.tensor_type.shape.dim[1:])]
    x = np.random.default_rng(1).standard_normal(size).astype(np.float32)
    (found,) = compiled.create_infer_request().infer({"x": x}).values()
    if "matrix" in case:
        weight = stored.astype(np.float32)
        wanted = x @ weight @ weight.T
    else:
        session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
        wanted = np.asarray(session.run(None, {"x": x})[0])
    np.testing.assert_allclose(found, wanted, atol=1e-5 * np.abs(wanted).max())


def test_one_thread_at_a_time_reads_and_compiles(
    tiny_bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    inside, most = [0], [0]

    def watched(call: Callable[..., Any]) -> Callable[..., Any]:
        def watch(*arguments: Any, **named: Any) -> Any:
            inside[0] += 1
            most[0] = max(most[0], inside[0])
            time.sleep(0.02)  # another thread would come in
            result = call(*arguments, **named)
            inside[0] -= 1
            return result

        return watch

    monkeypatch.setattr(openvino, "read_model", watched(read_model))
    core = importlib.import_module("openvino").Core
    monkeypatch.setattr(core, "compile_model", watched(core.compile_model))
    names = ("denoiser", "decoder", "encoder", "classifier.small")
    LoadedEngines(tiny_bundle, OPENVINO, 1).load(names, 4)
    assert most == [1]
