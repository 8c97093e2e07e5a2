"""What OpenVINO computes otherwise than ONNX says is found, and runs on ONNX Runtime."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from click.testing import CliRunner
from onnx import numpy_helper, parser

from synfer_rt import backends
from synfer_rt.backends import BackendStatus, choice, choose, parity, runs_on
from synfer_rt.bundle import MANIFEST, Bundle, open_bundle
from synfer_rt.bundle.engine_specs import RuntimeParity
from synfer_rt.commands.cli import main
from synfer_rt.diffusion.solvers import Trajectory
from synfer_rt.errors import UserError
from synfer_rt.sampling.sampler import Sampler
from tests.damaged_bundles import change, rehash
from tests.samples import request

CPU, OPENVINO = "onnxruntime-cpu", "openvino-cpu"
CLASSIFIER = "classifier.small"

needs_openvino = pytest.mark.skipif(
    not backends.status(OPENVINO).works, reason=backends.status(OPENVINO).reason
)

# Of opset 17, whose axes OpenVINO 2026.4 does not read: one norm for the whole batch.
_NORMALISED = """<ir_version: 8, opset_import: ["": 17]>
classifier (float[B,3,32,32] images) => (float[B,8] probabilities) {
  small = AveragePool <kernel_shape = [8, 8], strides = [8, 8]> (images)
  features = Flatten (small)
  length = ReduceL1 <axes = [1], keepdims = 1> (features)
  direction = Div (features, length)
  scores = Gemm (direction, weight)
  probabilities = Softmax (scores)
}"""
_DETERMINANTS = """<ir_version: 8, opset_import: ["": 17]>
classifier (float[B,3,32,32] images) => (float[B,8] probabilities) {
  shape = Constant <value_ints = [-1, 8, 384]> ()
  rows = Reshape (images, shape)
  turned = Transpose <perm = [0, 2, 1]> (rows)
  products = MatMul (rows, turned)
  volume = Det (products)
  axis = Constant <value_ints = [1]> ()
  column = Unsqueeze (volume, axis)
  weight = Constant <value_floats = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0]> ()
  scores = Mul (column, weight)
  probabilities = Softmax (scores)
}"""
WEIGHT = 100 * np.random.default_rng(5).standard_normal((48, 8)).astype(np.float32)


def probabilities(images: np.ndarray) -> np.ndarray:
    """What the classifier above says, by its definition."""
    features = images.reshape(len(images), 3, 4, 8, 4, 8).mean((3, 5)).reshape(len(images), -1)
    scores = features / np.abs(features).sum(1, keepdims=True) @ WEIGHT
    exponentials = np.exp(scores - scores.max(1, keepdims=True))
    return exponentials / exponentials.sum(1, keepdims=True)


def set_parity(fields: dict, name: str, error: float | None, **more: object) -> None:
    fields["engines"][name]["parity_openvino"] = {
        "tolerance": 1e-3,
        "max_relative_error": error,
        "batches": [1, 3, 24],
        **more,
    }


@pytest.fixture
def copy(tiny_bundle: Bundle, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_bundle.path, tmp_path / "copy"))


@pytest.fixture
def cpu_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    def status(name: str) -> BackendStatus:
        works = name.endswith("-cpu")
        return BackendStatus(name, works, "works" if works else "no GPU", "buy one")

    monkeypatch.setattr(choice, "status", status)


@pytest.fixture
def normalising(copy: Path) -> Path:
    """A bundle that was never measured, with a classifier that OpenVINO computes otherwise."""
    model = parser.parse_model(_NORMALISED)
    model.graph.initializer.append(numpy_helper.from_array(WEIGHT, "weight"))
    onnx.save(model, copy / f"{CLASSIFIER}.onnx")
    rehash(copy, f"{CLASSIFIER}.onnx")
    change(copy, lambda fields: [e.pop("parity_openvino") for e in fields["engines"].values()])
    return copy


@needs_openvino
@pytest.mark.usefixtures("cpu_alone")
def test_auto_runs_each_engine_where_it_is_right(normalising: Path) -> None:
    name, why = choose("auto", open_bundle(normalising))
    assert name == CPU and f"`synfer-rt verify-engines {normalising}`" in why

    result = CliRunner().invoke(main, ["verify-engines", str(normalising)])
    assert result.exit_code == 0, result.output
    assert f"{CLASSIFIER} runs on ONNX Runtime: OpenVINO 20" in result.output
    bundle = open_bundle(normalising)
    name, why = choose("auto", bundle)
    assert name == OPENVINO and f"{CLASSIFIER} on {CPU}, since OpenVINO" in why
    sampler = Sampler.of(bundle, name, 1)
    where = {engine: sampler.engines[engine].backend for engine in bundle.engines}
    assert where == {**dict.fromkeys(bundle.engines, OPENVINO), CLASSIFIER: CPU}
    for batch in (1, 24):
        images = np.random.default_rng(batch).random((batch, 3, 32, 32), np.float32)
        found = sampler.engines[CLASSIFIER].run({"images": images})["probabilities"]
        np.testing.assert_allclose(found, probabilities(images), atol=1e-5)


@needs_openvino
def test_engines_of_two_runtimes_make_the_samples_of_one(copy: Path, way: Trajectory) -> None:
    wanted = Sampler.of(open_bundle(copy), CPU, 1)
    change(copy, lambda fields: set_parity(fields, "denoiser", None))
    change(copy, lambda fields: set_parity(fields, CLASSIFIER, 0.5))
    name, why = choose(OPENVINO, open_bundle(copy))
    assert why.startswith(f"{OPENVINO} (as requested; denoiser, {CLASSIFIER} on {CPU}, since")
    mixed = Sampler.of(open_bundle(copy), name, 1)
    requests = [request(i) for i in range(5)]
    assert mixed.engines["denoiser"].backend == CPU
    assert mixed.engines["conditioner"].backend == mixed.engines["decoder"].backend == OPENVINO
    for one, other in zip(
        wanted.sample(requests, way, 5), mixed.sample(requests, way, 5), strict=True
    ):
        assert np.abs(one.image.astype(int) - other.image).max() <= 1
        assert one.probabilities == pytest.approx(other.probabilities, abs=1e-3)


@needs_openvino
@pytest.mark.usefixtures("cpu_alone")
def test_auto_runs_the_shipped_bundle_on_openvino() -> None:
    bundle = open_bundle()
    assert choose("auto", bundle)[0] == OPENVINO
    assert {runs_on(spec, OPENVINO) for spec in bundle.engines.values()} == {OPENVINO}


@needs_openvino
@pytest.mark.usefixtures("cpu_alone")
def test_another_version_of_openvino_is_named(copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    change(copy, lambda fields: set_parity(fields, "decoder", 0.0, version="2026.4.1"))
    monkeypatch.setattr("synfer_rt.backends.openvino.version", lambda: "2031.1")
    _, why = choose("auto", open_bundle(copy))
    assert "measured with OpenVINO 2026.4.1, and this is 2031.1" in why
    assert f"`synfer-rt verify-engines {copy}`" in why
    monkeypatch.setattr("synfer_rt.backends.openvino.version", lambda: "2026.4.1")
    assert choose("auto", open_bundle(copy)) == (OPENVINO, OPENVINO)


@pytest.mark.slow
@needs_openvino
@pytest.mark.parametrize(
    "name", ("denoiser", "decoder", "guide.text-latent", "classifier.dense", "au-reader")
)
def test_openvino_computes_the_shipped_bundle_as_it_says(name: str) -> None:
    bundle = open_bundle()
    said, found = bundle.engines[name].parity_openvino, parity.measure(bundle, name)
    assert said is not None and said.max_relative_error is not None
    assert 0 < found["max_relative_error"] < max(10 * said.max_relative_error, 1e-5)


@needs_openvino
def test_measuring_changes_nothing_but_the_manifest(normalising: Path) -> None:
    before = {file.name: file.read_bytes() for file in normalising.iterdir()}
    bundle = parity.measured(open_bundle(normalising))
    manifest = json.loads(before.pop(MANIFEST))
    assert {file: (normalising / file).read_bytes() for file in before} == before
    for name, fields in bundle.manifest["engines"].items():
        measured = fields.pop("parity_openvino")
        assert measured["batches"] == [1, 3, 24] and measured["version"].startswith("20")
        assert (measured["max_relative_error"] < 1e-4) == (name != CLASSIFIER)
    assert bundle.manifest == manifest


@needs_openvino
def test_what_was_measured_with_this_version_stays_unless_it_is_to_be_measured_anew(
    copy: Path,
) -> None:
    import openvino

    version = openvino.__version__.partition("-")[0]
    change(copy, lambda fields: set_parity(fields, "decoder", 0.7, version=version))
    change(copy, lambda fields: set_parity(fields, "encoder", 0.7, version="2020.1"))

    def errors(*, anew: bool) -> tuple[float | None, float | None]:
        engines = parity.measured(open_bundle(copy), anew=anew).engines
        found = engines["decoder"].parity_openvino, engines["encoder"].parity_openvino
        assert found[0] and found[1]
        return found[0].max_relative_error, found[1].max_relative_error

    kept, measured = errors(anew=False)
    assert kept == 0.7 and measured is not None and measured < 1e-4
    both = errors(anew=True)
    assert all(error is not None and error < 1e-4 for error in both)


@needs_openvino
def test_bfloat16_is_measured_where_the_cpu_has_it_of_what_may_be_rounded(
    tiny_bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parity, "has_bfloat16", lambda: True)
    found: dict[str, Any] = {
        name: parity.measure(tiny_bundle, name).get("bf16") for name in tiny_bundle.engines
    }
    assert found.pop("conditioner") is None
    assert all(entry["max_relative_error"] > 0 for entry in found.values())
    tolerances = {name: entry["tolerance"] for name, entry in found.items()}
    assert tolerances["denoiser"] == 0.2 and tolerances["decoder"] == 1 / 32
    assert tolerances[CLASSIFIER] == 0.01


@needs_openvino
def test_an_engine_that_openvino_cannot_load_fails_there_and_nowhere_else(copy: Path) -> None:
    model = parser.parse_model(_DETERMINANTS)
    onnx.save(model, copy / f"{CLASSIFIER}.onnx")
    rehash(copy, f"{CLASSIFIER}.onnx")
    said = parity.measure(open_bundle(copy), CLASSIFIER)
    assert said["max_relative_error"] is None
    change(copy, lambda fields: fields["engines"][CLASSIFIER].update(parity_openvino=said))
    bundle = open_bundle(copy)
    assert parity.sentence(bundle.engines[CLASSIFIER]) == (
        f"{CLASSIFIER} runs on ONNX Runtime: OpenVINO {said['version']} fails to run it."
    )
    assert runs_on(bundle.engines[CLASSIFIER], OPENVINO) == CPU


@pytest.mark.parametrize(
    ("found", "holds"),
    [
        (RuntimeParity("1", 1e-3, 1e-3), True),
        (RuntimeParity("1", 1e-3, 2e-3), False),
        (RuntimeParity("1", 1e-3, None), False),
        (RuntimeParity("1", 1e-3, 0.0, RuntimeParity("1", 0.2, 0.1)), True),
        (RuntimeParity("1", 1e-3, 0.0, RuntimeParity("1", 0.2, 0.3)), True),  # in float32
    ],
)
def test_an_engine_runs_on_openvino_where_rounding_explains_the_error(
    tiny_bundle: Bundle, found: RuntimeParity, holds: bool
) -> None:
    spec = replace(tiny_bundle.engines["decoder"], parity_openvino=found)
    assert found.holds is holds
    assert runs_on(spec, OPENVINO) == (OPENVINO if holds else CPU)
    assert runs_on(spec, "onnxruntime-cuda") == "onnxruntime-cuda"


@pytest.mark.usefixtures("cpu_alone")
def test_auto_leaves_out_openvino_where_it_is_right_for_nothing(copy: Path) -> None:
    def spoil(fields: dict) -> None:
        for name in fields["engines"]:
            set_parity(fields, name, 0.5)

    change(copy, spoil)
    name, why = choose("auto", open_bundle(copy))
    assert name == CPU and "OpenVINO computes every engine wrongly" in why


@pytest.mark.parametrize(
    "spoil",
    [
        lambda fields: set_parity(fields, "decoder", "small"),  # type: ignore[arg-type]
        lambda fields: fields["engines"]["decoder"].update(parity_openvino={"tolerance": 1}),
        lambda fields: fields["engines"]["decoder"].update(parity_openvino=[1]),
        lambda fields: set_parity(fields, "decoder", 0.1, bf16={"tolerance": "x"}),
    ],
)
def test_a_parity_that_is_none_is_refused(copy: Path, spoil: Callable) -> None:
    change(copy, spoil)
    with pytest.raises(UserError, match=r"bundle\.json (cannot be read|lacks)"):
        open_bundle(copy)


def test_probabilities_close_to_0_and_1_hide_nothing() -> None:
    """Two answers that differ a hundredfold, where the largest probability is 1 in both."""
    one, other = np.array([[1, 1e-6, 1e-9]]), np.array([[1, 1e-8, 1e-9]])
    assert parity.difference("scores", one, other) < 1e-4
    assert parity.difference("probabilities", one, other) == pytest.approx(2 / 9)
    assert parity.difference("probabilities", one, one) == 0


@pytest.mark.parametrize("size", [(64, 64), (256, 256), (512, 512)])
def test_no_more_images_are_measured_at_once_than_memory_holds(size: tuple[int, int]) -> None:
    assert parity.batches(size, CLASSIFIER) == parity.batches(size, "au-reader") == (1, 3, 24)
    most = max(parity.batches(size, "denoiser"))
    assert most == {64: 24, 256: 3, 512: 2}[size[0]]
