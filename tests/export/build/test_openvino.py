"""What a build says and refuses of OpenVINO."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import pytest

pytest.importorskip("diffusers", reason="the build side needs synfer-rt[export]")
from click.testing import CliRunner

from synfer_rt.backends import BackendStatus
from synfer_rt.bundle import Bundle, open_bundle, write_manifest
from synfer_rt.errors import UserError
from synfer_rt.export.build.whole_bundle import Options, Source, build_bundle
from synfer_rt.export.cli import build_engines
from synfer_rt.sampling.sampler import Sampler

_NORMALISING = """<ir_version: 8, opset_import: ["": 17]>
net (float[N,3,24,24] x) => (float[N,8] scores) {
  small = AveragePool <kernel_shape = [6, 6], strides = [6, 6]> (x)
  features = Flatten (small)
  length = ReduceL1 <axes = [1], keepdims = 1> (features)
  direction = Div (features, length)
  scores = MatMul (direction, weight)
}"""


def test_engines_are_compared_with_openvino_where_it_is_installed(mini_bundle: Bundle) -> None:
    pytest.importorskip("openvino")
    for entry in mini_bundle.manifest["engines"].values():
        parity = entry["parity_openvino"]
        assert 0 < parity["max_relative_error"] < 1e-4 and parity["batches"] == [1, 3, 24]


@pytest.fixture
def normalising(mini: tuple[Source, Path]) -> tuple[Source, Path]:
    """A checkpoint with a classifier that OpenVINO computes otherwise."""
    pytest.importorskip("openvino")
    source, out = mini
    model = onnx.parser.parse_model(_NORMALISING)
    weight = 50 * np.random.default_rng(5).standard_normal((48, 8)).astype(np.float32)
    model.graph.initializer.append(onnx.numpy_helper.from_array(weight, "weight"))
    onnx.save(model, source.directory / "classifiers" / "small.onnx")
    return source, out


def test_what_openvino_computes_otherwise_runs_on_onnxruntime(
    normalising: tuple[Source, Path],
) -> None:
    source, out = normalising
    result = CliRunner().invoke(build_engines, [str(source.directory), "--out", str(out)])
    assert result.exit_code == 0, result.output
    lines = [line for line in result.output.splitlines() if "OpenVINO" in line]
    assert len(lines) == 1
    assert lines[0].startswith("classifier.small runs on ONNX Runtime: OpenVINO 20")
    bundle = open_bundle(out)
    sampler, reference = Sampler.of(bundle, "openvino-cpu"), Sampler.of(bundle, "onnxruntime-cpu")
    images = np.random.default_rng(0).random((24, 3, 16, 16), np.float32)
    wanted = [verdict.probabilities for verdict in reference.judge(images, ["happy"] * 24)]
    found = [verdict.probabilities for verdict in sampler.judge(images, ["happy"] * 24)]
    assert found == wanted
    assert sampler.engines["decoder"].backend == "openvino-cpu"


def test_the_target_openvino_refuses_what_is_wrong_there(
    normalising: tuple[Source, Path],
) -> None:
    source, out = normalising
    before = (out / "bundle.json").read_bytes()
    with pytest.raises(
        UserError, match=r"engine classifier\.small cannot run on OpenVINO"
    ) as error:
        build_bundle(source, out, Options(targets=("openvino",)))
    assert "tolerance" not in str(error.value) and '`target="openvino"`' in str(error.value)
    assert (out / "bundle.json").read_bytes() == before


def forget_openvino(directory: Path) -> None:
    """Make a bundle as it was before its engines were compared with OpenVINO."""
    fields = json.loads((directory / "bundle.json").read_text())
    for entry in fields["engines"].values():
        del entry["parity_openvino"]
    write_manifest(directory, {k: fields[k] for k in fields if k not in ("format", "files")})


def test_without_openvino_the_build_says_how_to_compare_later(
    mini: tuple[Source, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    source, out = mini
    missing = BackendStatus("openvino-cpu", False, "openvino is not installed", "install it")
    monkeypatch.setattr("synfer_rt.export.build.whole_bundle.status", lambda name: missing)
    forget_openvino(out)
    result = CliRunner().invoke(build_engines, [str(source.directory), "--out", str(out)])
    assert result.exit_code == 0, result.output
    assert f"`synfer-rt verify-engines {out}`" in result.output
    assert all(spec.parity_openvino is None for spec in open_bundle(out).engines.values())
    with pytest.raises(UserError, match="does not work here: openvino is not installed"):
        build_bundle(source, out, Options(targets=("openvino",)))
