"""int8: calibrated on what the engines really get, close to the float engine, and still free."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("onnx", reason="the build side needs synfer-rt[export]")
import onnx
import onnxruntime
from onnx import TensorProto, helper

from synfer_rt.backends import to_numpy
from synfer_rt.bundle import Bundle
from synfer_rt.errors import UserError
from synfer_rt.export.onnx.quantize import _SEED, calibration_inputs, quantize
from synfer_rt.export.onnx.shared_weights import copy_with_weights
from synfer_rt.sampling.requests import make_requests
from synfer_rt.sampling.sampler import Sampler

ENGINES = ("denoiser", "classifier.small")


@pytest.fixture(scope="module")
def bundle(mini_bundle: Bundle) -> Bundle:
    return mini_bundle


@pytest.fixture(scope="module")
def calibration(bundle: Bundle) -> dict[str, list[dict[str, np.ndarray]]]:
    """Inputs of each engine: those of two images, at every step."""
    return {name: list(calibration_inputs(bundle, name, 2, 2)) for name in ENGINES}


@pytest.fixture(scope="module")
def quantized(
    bundle: Bundle, calibration: dict, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Path]:
    """The engines in int8."""
    folder = tmp_path_factory.mktemp("int8")
    for name in ENGINES:
        source = folder / f"{name}.float.onnx"
        copy_with_weights(bundle.path / bundle.engines[name].file, source)
        quantize(source, folder / f"{name}.onnx", calibration[name], name)
    return {name: folder / f"{name}.onnx" for name in ENGINES}


def test_calibration_adds_the_solvers_fresh_noise(tiny_bundle: Bundle) -> None:
    noisy = replace(tiny_bundle, defaults=replace(tiny_bundle.defaults, solver="lcm", steps=3))
    given = list(calibration_inputs(noisy, "denoiser", 2, 2))
    sampler, way = Sampler.of(noisy, "onnxruntime-cpu"), noisy.trajectory()
    requests = make_requests(noisy, seed=_SEED)[:2]
    steps = sampler.denoise(
        sampler.start(requests, way),
        sampler.condition(requests),
        np.array([request.guidance for request in requests], np.float32),
        way,
        keys=[(request.seed, request.index) for request in requests],
    )
    assert len(given) == 3
    for inputs, latents in zip(given[1:], steps, strict=False):
        np.testing.assert_allclose(inputs["latents"], to_numpy(latents), atol=1e-4)


def run(path: Path, given: dict[str, np.ndarray]) -> list[np.ndarray]:
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return [np.asarray(value) for value in session.run(None, given)]


def test_the_denoiser_is_calibrated_at_every_step(bundle: Bundle, calibration: dict) -> None:
    steps = [float(given["timestep"]) for given in calibration["denoiser"]]
    assert len(steps) == bundle.defaults.steps and steps == sorted(steps, reverse=True)
    assert set(calibration["denoiser"][0]) == {t.name for t in bundle.engines["denoiser"].inputs}
    first, last = calibration["denoiser"][0], calibration["denoiser"][-1]
    assert not first["history"].any() and last["history"].any()


def test_a_classifier_is_calibrated_on_the_images(bundle: Bundle, calibration: dict) -> None:
    (given,) = calibration["classifier.small"]
    assert given["images"].shape == (2, 3, *bundle.image_size)
    assert 0 <= given["images"].min() < 0.3 < 0.7 < given["images"].max() <= 1


@pytest.mark.parametrize("name", ENGINES)
def test_weights_are_int8_per_channel(quantized: dict[str, Path], name: str) -> None:
    graph = onnx.load(quantized[name]).graph
    weights = {tensor.name: tensor for tensor in graph.initializer}
    scales = {
        node.input[0]: list(weights[node.input[1]].dims)
        for node in graph.node
        if node.op_type == "DequantizeLinear" and node.input[0] in weights
    }
    eight = [w for w in weights.values() if w.data_type == TensorProto.INT8 and len(w.dims) > 1]
    assert eight
    for weight in eight:
        (channels,) = scales[weight.name]
        assert channels > 1 and channels in weight.dims


@pytest.mark.parametrize("name", ENGINES)
def test_the_interface_the_opset_and_the_free_batch_stay(
    bundle: Bundle, calibration: dict, quantized: dict[str, Path], name: str
) -> None:
    old, new = (onnx.load(p) for p in (bundle.path / f"{name}.onnx", quantized[name]))
    assert list(new.graph.input) == list(old.graph.input)
    assert list(new.graph.output) == list(old.graph.output)
    assert new.opset_import == old.opset_import and not new.metadata_props
    given = calibration[name][0]
    fixed = ("timestep", "coefficients")
    one = {k: v if k in fixed else v[:1] for k, v in given.items()}
    three = {k: v if k in fixed else np.concatenate([v, v[:1]]) for k, v in given.items()}
    alone, together = run(quantized[name], one), run(quantized[name], three)
    for a, b in zip(alone, together, strict=True):
        np.testing.assert_allclose(a[0], b[2], atol=1e-4)


@pytest.mark.parametrize(("name", "allowed"), [("denoiser", 0.1), ("classifier.small", 0.05)])
def test_the_error_is_small_but_there(
    bundle: Bundle, calibration: dict, quantized: dict[str, Path], name: str, allowed: float
) -> None:
    for given in calibration[name][-1:]:
        wanted = run(bundle.path / f"{name}.onnx", given)[-1]
        error = np.abs(run(quantized[name], given)[-1] - wanted).max() / np.abs(wanted).max()
        assert 0 < error < allowed


def test_the_solver_and_the_attention_stay_float(quantized: dict[str, Path]) -> None:
    """None of what reads `coefficients` and `guidance`, or feeds a softmax, is quantized."""
    graph = onnx.load(quantized["denoiser"]).graph
    makers = {value: node for node in graph.node for value in node.output}
    readers = [n for n in graph.node if {"coefficients", "guidance"} & set(n.input)]
    scores = [makers[n.input[0]] for n in graph.node if n.op_type == "Softmax"]
    assert readers and scores and {n.op_type for n in scores} == {"MatMul"}
    for node in (*(n for n in readers if n.op_type == "MatMul"), *scores):
        assert all(makers[v].op_type != "DequantizeLinear" for v in node.input if v in makers)
    assert all(node.op_type != "QuantizeLinear" for node in readers)


def test_no_inputs_and_no_weights_are_refused(bundle: Bundle, tmp_path: Path) -> None:
    source = bundle.path / bundle.engines["classifier.small"].file
    with pytest.raises(UserError, match=r"no inputs to calibrate the classifier\.small"):
        quantize(source, tmp_path / "x.onnx", iter(()), "classifier.small")
    x, y = (helper.make_tensor_value_info(n, TensorProto.FLOAT, ["B", 4]) for n in "xy")
    graph = helper.make_graph([helper.make_node("Relu", ["x"], ["y"])], "g", [x], [y])
    opsets = [helper.make_opsetid("", 21)]
    plain = tmp_path / "plain.onnx"
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=10), plain)
    with pytest.raises(UserError, match="has no weights to quantize"):
        quantize(plain, tmp_path / "x.onnx", iter(()), "relu")
    assert not (tmp_path / "x.onnx").exists()
