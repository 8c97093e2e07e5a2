"""ONNX networks of images, as their descriptions say."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper, parser
from PIL import Image

from synfer_rt.data.pixels import GREY
from synfer_rt.errors import UserError
from synfer_rt.networks.descriptions import RESIZING, Description, parse
from synfer_rt.networks.image_network import AT_ONCE, ImageNetwork

KINDS = ("features",)
IMAGES = np.random.default_rng(0).random((40, 3, 16, 16), np.float32)


def saved(file: Path, text: str, **weights: np.ndarray) -> Path:
    made = parser.parse_model(f'<ir_version: 8, opset_import: ["" : 17]> {text}')
    for name, values in weights.items():
        made.graph.initializer.append(numpy_helper.from_array(values, name))
    file.write_bytes(made.SerializeToString())
    return file


def same(folder: Path, shape: str = "B,3,16,16") -> Path:
    """A network that gives its input, flat."""
    return saved(
        folder / "same.onnx",
        f"net (float[{shape}] x) => (float[B,K] flat) {{ flat = Flatten (x) }}",
    )


def network(path: Path, text: str) -> ImageNetwork:
    return ImageNetwork(path, parse(text, "features", KINDS, RESIZING), "network", KINDS)


def test_a_network_gets_normalised_channels_in_its_order(tmp_path: Path) -> None:
    path = same(tmp_path)
    assert np.array_equal(network(path, "16,rgb")(IMAGES), IMAGES.reshape(40, -1))
    found = network(path, "16,bgr,mean=0.1/0.2/0.3,std=0.5/0.6/0.7")(IMAGES)
    mean, std = np.array([0.1, 0.2, 0.3], "f4"), np.array([0.5, 0.6, 0.7], "f4")
    expected = (IMAGES[:, ::-1] - mean[:, None, None]) / std[:, None, None]
    assert np.allclose(found, expected.reshape(40, -1), atol=1e-6)
    grey = network(same(tmp_path, "B,1,16,16"), "16,grey")(IMAGES)
    assert np.allclose(grey, (IMAGES * np.array(GREY)[:, None, None]).sum(1).reshape(40, -1))


def test_channels_may_come_last(tmp_path: Path) -> None:
    found = network(same(tmp_path, "B,16,16,3"), "16,rgb")(IMAGES)
    assert np.array_equal(found, IMAGES.transpose(0, 2, 3, 1).reshape(40, -1))


@pytest.mark.parametrize("how", RESIZING)
def test_images_are_resized_as_pillow_does(tmp_path: Path, how: str) -> None:
    images = np.random.default_rng(0).random((2, 3, 30, 20), np.float32)
    found = network(same(tmp_path), f"16,rgb,{how}")(images).reshape(2, 3, 16, 16)
    for image, resized in zip(images, found, strict=True):
        for plane, new in zip(image, resized, strict=True):
            by_pillow = Image.fromarray(plane).resize((16, 16), Image.Resampling[how.upper()])
            assert np.allclose(new, np.asarray(by_pillow), atol=1e-5)


def test_a_result_does_not_depend_on_how_many_images_are_given(tmp_path: Path) -> None:
    weight = np.random.default_rng(0).normal(size=(768, 20)).astype("f4")
    path = saved(
        tmp_path / "dense.onnx",
        "net (float[B,3,16,16] x) => (float[B,20] y) { f = Flatten (x) y = MatMul (f, weight) }",
        weight=weight,
    )
    dense = network(path, "16,rgb")
    whole = dense(IMAGES)
    assert len(IMAGES) > AT_ONCE and whole.shape == (40, 20)
    for image, row in zip(IMAGES[::7], whole[::7], strict=True):
        assert np.array_equal(dense(image[None])[0], row)


def test_a_file_for_one_image_at_a_time_runs(tmp_path: Path) -> None:
    path = saved(
        tmp_path / "one.onnx",
        "net (float[1,3,16,16] x) => (float[1,768] y) { y = Flatten (x) }",
    )
    assert np.array_equal(network(path, "16,rgb")(IMAGES[:3]), IMAGES[:3].reshape(3, -1))


def test_any_value_of_the_graph_may_be_the_output(tmp_path: Path) -> None:
    path = saved(
        tmp_path / "deep.onnx",
        """net (float[B,3,16,16] x) => (float[B,768] y) {
          inner = AveragePool <kernel_shape = [4, 4], strides = [4, 4]> (x)
          more = Relu (x)
          y = Flatten (more)
        }""",
    )
    maps = network(path, "16,rgb,output=inner")(IMAGES)  # averaged over their positions
    assert np.allclose(maps, IMAGES.mean((2, 3)), atol=1e-6)
    with pytest.raises(UserError, match=r"has no value 'other'; its outputs are y"):
        network(path, "16,rgb,output=other")


@pytest.mark.parametrize(
    "text, words",
    [
        ("8,rgb", r"takes \[\['B', 3, 16, 16\]\], not images \[batch, 3, 8, 8\]"),
        ("16,grey", r"not images \[batch, 1, 16, 16\]"),
        ("16,rgb,mean=120/120/120", "divide them by 255"),
        ("16,rgb,std=0/1/1", "none 0"),
        ("16,rgb,std=1e-39/1/1", "not finite"),
    ],
)
def test_what_a_file_is_not_is_refused(tmp_path: Path, text: str, words: str) -> None:
    with pytest.raises(UserError, match=words):
        network(same(tmp_path), text)


def test_which_of_several_outputs_is_meant_must_be_said(tmp_path: Path) -> None:
    path = saved(
        tmp_path / "two.onnx",
        "net (float[B,3,16,16] x) => (float[B,K] a, float[B,K] b) "
        "{ a = Flatten (x) b = Identity (a) }",
    )
    with pytest.raises(UserError, match=r"has the outputs a, b, .* add output=NAME"):
        network(path, "16,rgb")
    assert network(path, "16,rgb,output=b")(IMAGES[:1]).shape == (1, 768)


def test_an_output_without_features_is_refused(tmp_path: Path) -> None:
    path = saved(
        tmp_path / "scalar.onnx",
        "net (float[B,3,16,16] x) => (float y) { y = ReduceMean <keepdims = 0> (x) }",
    )
    with pytest.raises(UserError, match=r"name an output \[batch, K\]"):
        network(path, "16,rgb")


def test_a_description_is_read() -> None:
    found = parse("224,bgr,imagenet,bicubic,output=pool", "features", KINDS, RESIZING)
    assert found == Description(
        224, "bgr", (0.406, 0.456, 0.485), (0.225, 0.224, 0.229), "features", "pool", "bicubic"
    )
    for text in ("rgb", "64,rgb,grey", "64,bicubic", "64,mean=a/b/c", "64,what"):
        with pytest.raises(UserError, match=r"`features` .* cannot be read"):
            parse(text, "features", KINDS)


def test_a_model_of_no_operators_is_refused(tmp_path: Path) -> None:
    made = onnx.load(same(tmp_path))
    made.graph.node[0].op_type = "Unheard"
    (tmp_path / "same.onnx").write_bytes(made.SerializeToString())
    with pytest.raises(UserError, match="cannot be loaded by onnxruntime-cpu"):
        network(tmp_path / "same.onnx", "16,rgb")
