"""Group normalisation by channels gives what its definition says."""

from __future__ import annotations

from importlib import import_module
from typing import Any

import numpy as np
import pytest

from synfer_rt import backends
from synfer_rt.backends import open_engine
from synfer_rt.backends.openvino import OpenVinoEngine
from synfer_rt.backends.openvino_group_norm import by_channel
from synfer_rt.bundle import Bundle, open_bundle

OPENVINO = "openvino-cpu"
_NORM = "GroupNormalization"
pytestmark = pytest.mark.skipif(
    not backends.status(OPENVINO).works, reason=backends.status(OPENVINO).reason
)


def library() -> tuple[Any, Any]:
    """OpenVINO and its operators, whose types contradict each other."""
    return import_module("openvino"), import_module("openvino.opset13")


@pytest.fixture(scope="module")
def shipped() -> Bundle:
    return open_bundle()


def group_norm(x: np.ndarray, groups: int, epsilon: float) -> np.ndarray:
    """Wu and He, arXiv 1803.08494, equations 1 and 2, in float64."""
    parts = x.astype(np.float64).reshape(len(x), groups, -1)
    centred = parts - parts.mean(2, keepdims=True)
    deviation = np.sqrt((centred**2).mean(2, keepdims=True) + epsilon)
    return (centred / deviation).reshape(x.shape)


@pytest.mark.parametrize(("channels", "groups"), [(8, 4), (8, 1), (6, 6), (64, 32)])
@pytest.mark.parametrize("offset", [0.0, 100.0])
def test_images_are_normalised_by_groups_of_channels(
    channels: int, groups: int, offset: float
) -> None:
    openvino, op = library()

    draws = np.random.default_rng(0)
    images = (offset + draws.standard_normal((3, channels, 5, 7))).astype(np.float32)
    scale, bias = draws.standard_normal((2, channels)).astype(np.float32)
    given = op.parameter([-1, channels, -1, -1], np.float32)
    norm = op.group_normalization(given, op.constant(scale), op.constant(bias), groups, 1e-2)
    model = openvino.Model([norm], [given])
    by_channel(model)
    assert _NORM not in {node.get_type_name() for node in model.get_ordered_ops()}
    exact = {"INFERENCE_PRECISION_HINT": "f32"}
    found = openvino.Core().compile_model(model, "CPU", exact)([images])[0]
    wanted = group_norm(images, groups, 1e-2) * scale[:, None, None] + bias[:, None, None]
    np.testing.assert_allclose(found, wanted, atol=1e-5 * (1 + offset))


def test_sequences_are_left_alone() -> None:
    openvino, op = library()

    given = op.parameter([-1, 8, -1], np.float32)
    ones = op.constant(np.ones(8, np.float32))
    model = openvino.Model([op.group_normalization(given, ones, ones, 2, 1e-5)], [given])
    by_channel(model)
    assert _NORM in {node.get_type_name() for node in model.get_ordered_ops()}


@pytest.mark.parametrize("name", ["decoder", "encoder"])
def test_in_float32_images_have_no_other(shipped: Bundle, name: str) -> None:
    spec, left = shipped.engines[name], {}
    for precision in ("f32", "bf16"):
        engine = OpenVinoEngine(spec, shipped.path / spec.file, 1, precision, 256)
        norms = [n for n in engine._model.get_ordered_ops() if n.get_type_name() == _NORM]
        left[precision] = [n for n in norms if n.get_output_partial_shape(0).rank.get_length() == 4]
    assert not left["f32"]
    assert len(left["bf16"]) > 8


@pytest.mark.usefixtures("in_float32")
@pytest.mark.parametrize("scale", [1, 20])
def test_latents_far_from_zero_are_decoded_as_by_onnxruntime(shipped: Bundle, scale: int) -> None:
    latents = np.random.default_rng(1).standard_normal((2, 4, 16, 16)).astype(np.float32)
    latents *= scale
    found, wanted = (
        open_engine(shipped, "decoder", name, 1).run({"latents": latents})["images"]
        for name in (OPENVINO, "onnxruntime-cpu")
    )
    np.testing.assert_allclose(found, wanted, atol=1e-5)
