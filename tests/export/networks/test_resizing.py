"""Images are resized in the graph as Pillow does it: antialiased, on every runtime."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("diffusers", reason="the build side needs synfer-rt[export]")
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper
from PIL import Image

from synfer_rt.export.networks.resizing import resize

Runtime = Callable[[onnx.ModelProto, np.ndarray], np.ndarray]


def by_onnxruntime(model: onnx.ModelProto, images: np.ndarray) -> np.ndarray:
    session = onnxruntime.InferenceSession(model.SerializeToString())
    return np.asarray(session.run(None, {"images": images})[0])


def by_openvino(model: onnx.ModelProto, images: np.ndarray) -> np.ndarray:
    openvino = pytest.importorskip("openvino", reason="needs synfer-rt[openvino]")
    core = openvino.Core()
    hints = {"INFERENCE_PRECISION_HINT": "f32"}
    compiled = core.compile_model(core.read_model(model.SerializeToString(), b""), "CPU", hints)
    return np.array(compiled([images])[0])


RUNTIMES = pytest.mark.parametrize("run", [by_onnxruntime, by_openvino])


def graph(size: tuple[int | str, int | str], new: int, opset: int = 13) -> onnx.ModelProto:
    nodes, constants = resize("images", "small", size, new)
    shapes = {"images": ["B", 3, *size], "small": ["B", 3, new, new]}
    entry, end = (
        helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)
        for name, shape in shapes.items()
    )
    made = [numpy_helper.from_array(np.asarray(x), name) for name, x in constants.items()]
    opsets = [helper.make_opsetid("", opset)]
    model = helper.make_model(
        helper.make_graph(nodes, "resize", [entry], [end], made), opset_imports=opsets, ir_version=8
    )
    onnx.checker.check_model(model, full_check=True)
    return model


def triangle(row: np.ndarray, new: int) -> np.ndarray:
    """A row of pixels resized by the definition of Pillow's bilinear filter, one by one."""
    scale = len(row) / new
    reach, result = max(scale, 1.0), []
    for i in range(new):
        centre = (i + 0.5) * scale
        weights = [max(0.0, 1 - abs(j + 0.5 - centre) / reach) for j in range(len(row))]
        result.append(np.dot(weights, row) / sum(weights))
    return np.array(result)


@RUNTIMES
@pytest.mark.parametrize("free", [False, True])
@pytest.mark.parametrize("size", [(50, 37), (24, 40), (7, 24), (64, 11)])
def test_both_axes_are_filtered_by_a_triangle(
    run: Runtime, free: bool, size: tuple[int, int]
) -> None:
    images = np.random.default_rng(0).random((2, 3, *size), np.float32)
    wanted = np.apply_along_axis(triangle, 2, images.astype("f8"), 24)
    wanted = np.apply_along_axis(triangle, 3, wanted, 24)
    found = run(graph(("H", "W") if free else size, 24), images)
    np.testing.assert_allclose(found, wanted, atol=2e-6)


@RUNTIMES
@pytest.mark.parametrize("free", [False, True])
@pytest.mark.parametrize("new", [48, 224])
def test_grain_and_stripes_reach_a_network_as_pillow_shows_them(
    run: Runtime, free: bool, new: int
) -> None:
    """Of 8-bit images of 512 pixels: Pillow rounds twice, to half of 1/255 each."""
    draw = np.random.default_rng(0)
    rows = np.mgrid[:512, :512][0]
    grain = np.clip(128 + 38 * draw.standard_normal((512, 512, 3)), 0, 255)
    stripes = np.repeat((rows % 2 * 255)[..., None], 3, 2)
    pictures = np.stack([grain, stripes]).astype(np.uint8)
    wanted = [
        np.asarray(Image.fromarray(picture).resize((new, new), Image.Resampling.BILINEAR))
        for picture in pictures
    ]
    images = pictures.transpose(0, 3, 1, 2).astype(np.float32) / 255
    found = run(graph(("H", "W") if free else (512, 512), new), images)
    assert np.abs(found - np.stack(wanted).transpose(0, 3, 1, 2) / 255).max() < 0.005


def test_every_opset_from_13_on_means_the_same() -> None:
    images = np.random.default_rng(1).random((1, 3, 40, 30), np.float32)
    wanted = by_onnxruntime(graph(("H", "W"), 12), images)
    for opset in (15, 18, 21, 23):
        np.testing.assert_array_equal(by_onnxruntime(graph(("H", "W"), 12, opset), images), wanted)


@pytest.mark.parametrize("free", [False, True])
def test_weights_stored_as_float16_move_no_pixel(free: bool) -> None:
    """Above 2048 float16 holds even numbers alone, which would shift every other pixel."""
    import onnx_ir as ir

    from synfer_rt.export.onnx.forward_graph import store_half

    size = (6, 3000)
    images = np.random.default_rng(2).random((1, 3, *size), np.float32)
    model = graph(("H", "W") if free else size, 1500, opset=21)
    wanted = by_onnxruntime(model, images)
    stored = ir.from_proto(model)
    store_half(stored.graph)
    found = by_onnxruntime(ir.to_proto(stored), images)
    assert np.abs(found - wanted).max() < (1e-6 if free else 2e-3)


@pytest.mark.parametrize("size", [(64, 48), ("H", "W")])
def test_an_int8_classifier_resizes_in_float(tmp_path: Path, size: Any) -> None:
    """Nor do the products of resizing take the place of the first that is kept in float."""
    from synfer_rt.export.networks.classifier import ClassifierSource
    from synfer_rt.export.networks.image_network import compose_network
    from synfer_rt.export.onnx.quantize import quantize
    from tests.export.tiny_checkpoint import save_classifier

    save_classifier(tmp_path / "net.onnx", channels=3, classes=8)
    network = onnx.load(tmp_path / "net.onnx")
    draw = np.random.default_rng(3)
    for last, name in (("logits", "second"), ("second", "third")):
        weight = numpy_helper.from_array(draw.random((8, 8), np.float32), f"{name}_weight")
        network.graph.initializer.append(weight)
        network.graph.node.append(helper.make_node("MatMul", [last, weight.name], [name]))
    network.graph.output[0].name = "third"
    onnx.save(network, tmp_path / "net.onnx")
    source = ClassifierSource(
        "net", tmp_path / "net.onnx", 24, "rgb", (0.5,) * 3, (0.3,) * 3, label_scheme="affectnet-8"
    )
    onnx.save(compose_network(source, size), tmp_path / "float.onnx")
    images = ({"images": draw.random((2, 3, 64, 48), np.float32)} for _ in range(2))
    quantize(tmp_path / "float.onnx", tmp_path / "int8.onnx", images, "net")
    graph = onnx.load(tmp_path / "int8.onnx").graph
    quantized = {node.input[0] for node in graph.node if node.op_type == "QuantizeLinear"}
    assert quantized == {"classifier/logits"}


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
@pytest.mark.parametrize("free", [False, True])
def test_a_classifier_that_shrinks_images_becomes_a_plan(
    tmp_path: Path, free: bool, precision: str
) -> None:
    pytest.importorskip("tensorrt_rtx", reason="plans need `pip install tensorrt-rtx`")
    from synfer_rt.bundle.sizes import Sizes
    from synfer_rt.export.networks.classifier import ClassifierSource
    from synfer_rt.export.networks.image_network import compose_network
    from synfer_rt.export.tensorrt.compile import compile_plan
    from tests.export.tiny_checkpoint import save_classifier

    save_classifier(tmp_path / "net.onnx", channels=1, classes=8)
    source = ClassifierSource(
        "net", tmp_path / "net.onnx", 24, "grey", (0.5,), (0.3,), label_scheme="affectnet-8"
    )
    model = compose_network(source, ("H", "W") if free else (64, 48))
    onnx.save(model, tmp_path / "classifier.net.onnx")
    example = {"images": np.random.default_rng(0).random((2, 3, 64, 48), np.float32)}
    axes = Sizes(32, 96, 16).axes((64, 48), (32, 24)) if free else {}
    made = compile_plan(
        *("classifier.net", tmp_path / "classifier.net.onnx", tmp_path / "out", "tensorrt-rtx"),
        *(["sm89"], (1, 2, 4), precision, tmp_path / "build.log"),
        axes=axes,
        example=example,
    )
    assert (tmp_path / "out" / made.entry["file"]).stat().st_size > 1000
