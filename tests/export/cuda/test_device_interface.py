"""A CUDA engine's inputs and outputs give what the host makes of the ONNX engine's."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
import pytest
from onnx import parser

from synfer_rt.bundle import Bundle
from synfer_rt.data import pixels
from synfer_rt.diffusion.solvers import Trajectory
from synfer_rt.export.cuda.device_interface import give_device_interface
from tests import tiny_bundle as tiny

_IMAGES = """<ir_version: 10, opset_import: ["": 21]>
decoder (float[B,3,H,W] latents) => (float[B,3,H,W] images) {
  pixels = Neg (latents)
  sound = Neg (pixels)
  images = Identity (sound)
}
"""
_LEVEL = np.float32(1 / 255)


def _session(model: onnx.ModelProto, engine: str) -> Any:
    changed = ir.from_proto(model)
    give_device_interface(changed, engine)
    proto = ir.to_proto(changed)
    onnx.checker.check_model(proto, full_check=True)
    return onnxruntime.InferenceSession(
        proto.SerializeToString(), providers=["CPUExecutionProvider"]
    )


def _outputs(session: Any, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    names = [node.name for node in session.get_outputs()]
    return dict(zip(names, session.run(names, inputs), strict=True))


def _images() -> dict[str, Any]:
    draws = np.random.default_rng(0)
    plain = draws.random((3, 16, 8), np.float32)

    def with_one(value: float) -> np.ndarray:
        image = plain.copy()
        image[1, 3, 4] = value
        return image

    flat = np.full_like(plain, 0.25)
    halves = ((np.arange(plain.size) % 255 + 0.5) / 255).astype(np.float32).reshape(plain.shape)
    varied = {
        f"a channel that varies by {name}": flat
        + np.eye(1, plain.size, 130, dtype=np.float32).reshape(plain.shape) * span
        for name, span in (
            ("a level", _LEVEL),
            ("a little less", np.nextafter(_LEVEL, np.float32(0))),
            ("a little more", np.nextafter(_LEVEL, np.float32(1))),
        )
    }
    coloured = np.broadcast_to(np.array([0.0, 0.5, 1.0], np.float32)[:, None, None], plain.shape)
    return {
        "plain": plain,
        "outside [0, 1]": 4 * plain - 2,
        "flat": flat,
        "black": np.zeros_like(plain),
        "each channel flat": np.ascontiguousarray(coloured),
        "flat above 1, where clipping hides nothing": flat + 3,
        "ties of rounding": halves,
        "the largest floats": np.float32(3e38) * (2 * plain - 1),
        "subnormal": with_one(1e-42),
        "all NaN": np.full_like(plain, np.nan),
        "all infinite": np.full_like(plain, np.inf),
        "a NaN": with_one(np.nan),
        "an infinity": with_one(np.inf),
        "a negative infinity": with_one(-np.inf),
        "flat with a NaN": np.where(with_one(np.nan) != with_one(np.nan), np.nan, flat),
        **varied,
    }


def test_a_decoder_gives_the_pixels_and_the_soundness_that_the_host_computes() -> None:
    session = _session(parser.parse_model(_IMAGES), "decoder")
    images = np.stack([*_images().values()]).astype(np.float32)
    found = _outputs(session, {"latents": images})
    valid = pixels.finite(images)
    np.testing.assert_array_equal(found["images"], valid)
    np.testing.assert_array_equal(found["pixels"], pixels.in_8_bits(valid))
    sound = dict(zip(_images(), pixels.sound(images).tolist(), strict=True))
    assert dict(zip(_images(), found["sound"].tolist(), strict=True)) == sound
    assert found["pixels"].dtype == np.uint8 and found["sound"].dtype == np.bool_
    assert set(sound.values()) == {True, False}


def test_no_image_depends_on_a_broken_one_of_its_batch() -> None:
    session = _session(parser.parse_model(_IMAGES), "decoder")
    images = np.stack([*_images().values()]).astype(np.float32)
    whole = _outputs(session, {"latents": images})
    for i in range(len(images)):
        alone = _outputs(session, {"latents": images[i : i + 1]})
        for name, value in alone.items():
            np.testing.assert_array_equal(value[0], whole[name][i])


def test_a_denoiser_finds_its_step_in_tables(tiny_bundle: Bundle, way: Trajectory) -> None:
    file = tiny_bundle.path / tiny_bundle.engines["denoiser"].file
    plain = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
    session = _session(onnx.load(file), "denoiser")
    assert [node.name for node in session.get_inputs()][-1] == "step"
    draws = np.random.default_rng(1)
    given = {
        "latents": draws.standard_normal((2, *tiny.LATENT)).astype(np.float32),
        "history": draws.standard_normal((2, 3, *tiny.LATENT)).astype(np.float32),
        "guidance": np.array([1, 3], np.float32),
        "text": draws.standard_normal((2, 2, 8)).astype(np.float32),
        "au_bias": draws.standard_normal((2, 2, 8)).astype(np.float32),
    }
    tables = {"timesteps": way.timesteps, "coefficients": way.coefficients}
    next_step = np.array(0, np.int64)
    for step in range(len(way.timesteps)):
        now = {
            "timestep": np.asarray(way.timesteps[step]),
            "coefficients": way.coefficients[step],
        }
        wanted = _outputs(plain, given | now)
        found = _outputs(session, {**given, **tables, "step": next_step})
        next_step = found.pop("next_step")
        assert next_step == step + 1 and next_step.dtype == np.int64 and next_step.shape == ()
        for name, value in wanted.items():
            np.testing.assert_array_equal(found[name], value)


@pytest.mark.parametrize("form", ["text-latent", "latent"])
def test_a_guide_finds_its_step_in_tables(
    guided_bundle: Bundle, way: Trajectory, form: str
) -> None:
    spec = guided_bundle.engines[f"guide.{form}"]
    file: Path = guided_bundle.path / spec.file
    plain = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
    session = _session(onnx.load(file), spec.name)
    taken = [node.name for node in session.get_inputs()]
    assert "cleans" in taken and "clean" not in taken and "timestep" not in taken
    draws = np.random.default_rng(1)
    given = {
        tensor.name: draws.standard_normal(
            [3 if n == "B" else int(n) for n in tensor.shape]
        ).astype("f4")
        for tensor in spec.inputs
    }
    of_steps = {
        "timestep": way.timesteps,
        "coefficients": way.coefficients,
        "clean": way.coefficients[:, 1, :2],
    }
    used = [name for name in of_steps if name in given]
    tables = {**given, "timesteps": way.timesteps, "cleans": of_steps["clean"]}
    tables |= {"coefficients": way.coefficients}
    for step in range(len(way.timesteps)):
        wanted = _outputs(plain, given | {name: np.asarray(of_steps[name][step]) for name in used})
        tables["step"] = np.array(step, np.int64)
        found = _outputs(session, {name: tables[name] for name in taken})
        assert found.keys() == wanted.keys()
        for name, value in wanted.items():
            np.testing.assert_array_equal(found[name], value)


def test_other_engines_keep_their_interface(tiny_bundle: Bundle) -> None:
    for name in ("conditioner", "encoder", "classifier.small"):
        model = onnx.load(tiny_bundle.path / tiny_bundle.engines[name].file)
        changed = ir.from_proto(model)
        give_device_interface(changed, name)
        assert [v.name for v in changed.graph.inputs] == [v.name for v in model.graph.input]
        assert [v.name for v in changed.graph.outputs] == [v.name for v in model.graph.output]
