"""Any ONNX classifier becomes images in [0, 1] -> probabilities."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

pytest.importorskip("diffusers", reason="the build side needs synfer-rt[export]")
import onnxruntime
import torch

from synfer_rt.errors import UserError
from synfer_rt.export.networks.classifier import ClassifierSource, parse_classifier, read_classifier
from synfer_rt.export.networks.image_network import compose_network, reference
from tests.export.tiny_checkpoint import save_classifier

RGB = {"mean": (0.5, 0.4, 0.3), "std": (0.2, 0.3, 0.5)}


def source(folder: Path, channels: str = "rgb", opset: int = 17, **changes) -> ClassifierSource:
    path = folder / "small.onnx"
    save_classifier(path, {"rgb": 3, "grey": 1}[channels], 8, opset)
    numbers: Any = RGB if channels == "rgb" else {"mean": (0.4,), "std": (0.1,)}
    return replace(
        ClassifierSource("small", path, 24, channels, **numbers, label_scheme="affectnet-8"),
        **changes,
    )


def run(model: onnx.ModelProto, images: np.ndarray) -> np.ndarray:
    onnx.checker.check_model(model, full_check=True)
    session = onnxruntime.InferenceSession(model.SerializeToString())
    return np.asarray(session.run(["probabilities"], {"images": images})[0])


def images(batch: int, height: int, width: int) -> np.ndarray:
    return np.random.default_rng(batch).random((batch, 3, height, width), np.float32)


@pytest.mark.parametrize("channels", ["rgb", "grey"])
@pytest.mark.parametrize("size", [(24, 24), (16, 16), (64, 48)])
@pytest.mark.parametrize("opset", [11, 17])
def test_preparation_and_softmax_are_those_of_pytorch(
    tmp_path: Path, channels: str, size: tuple[int, int], opset: int
) -> None:
    classifier = source(tmp_path, channels, opset)
    model = compose_network(classifier, size)
    for batch in (1, 3):
        given = images(batch, *size)
        wanted = reference(classifier, torch.from_numpy(given)).numpy()
        np.testing.assert_allclose(run(model, given), wanted, atol=1e-5)


def test_the_normalisation_is_minus_mean_over_std(tmp_path: Path) -> None:
    classifier = source(tmp_path, output="probabilities")
    given = images(2, 24, 24)
    mean, std = (np.array(RGB[key], np.float32).reshape(3, 1, 1) for key in ("mean", "std"))
    session = onnxruntime.InferenceSession(classifier.path)
    wanted = np.asarray(session.run(None, {"x": (given - mean) / std})[0])
    np.testing.assert_allclose(run(compose_network(classifier, (24, 24)), given), wanted, atol=1e-5)


def test_probabilities_sum_to_one(tmp_path: Path) -> None:
    found = run(compose_network(source(tmp_path), (24, 24)), images(3, 24, 24))
    assert found.shape == (3, 8)
    np.testing.assert_allclose(found.sum(1), 1, atol=1e-6)


def test_another_input_size_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="`classifier_input`"):
        compose_network(source(tmp_path, input_size=32), (24, 24))


def test_another_number_of_classes_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="8 scores, raf-db has 7"):
        compose_network(source(tmp_path, label_scheme="raf-db"), (24, 24))


def test_a_file_that_is_no_onnx_is_refused(tmp_path: Path) -> None:
    classifier = source(tmp_path)
    classifier.path.write_bytes(b"no model")
    with pytest.raises(UserError, match="not an ONNX model"):
        compose_network(classifier, (24, 24))


def test_what_onnx_runtime_cannot_run_is_refused(tmp_path: Path) -> None:
    classifier = source(tmp_path)
    model = onnx.load(classifier.path)
    model.graph.input[0].type.tensor_type.elem_type = onnx.TensorProto.DOUBLE
    onnx.save(model, classifier.path)
    with pytest.raises(UserError, match=r"ONNX Runtime cannot run .* on images"):
        reference(classifier, torch.zeros(1, 3, 24, 24))


def test_an_open_number_of_classes_is_counted(tmp_path: Path) -> None:
    classifier = source(tmp_path, label_scheme="raf-db")
    model = onnx.load(classifier.path)
    model.graph.output[0].type.tensor_type.shape.dim[1].dim_param = "classes"
    onnx.save(model, classifier.path)
    compose_network(classifier, (24, 24))
    with pytest.raises(UserError, match="8 scores, raf-db has 7"):
        reference(classifier, torch.zeros(1, 3, 24, 24))


def test_logits_are_no_probabilities(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"giving probabilities, but .*as logits"):
        reference(source(tmp_path, output="probabilities"), torch.rand(2, 3, 24, 24))


def test_probabilities_are_no_logits(tmp_path: Path) -> None:
    classifier = source(tmp_path)
    model = onnx.load(classifier.path)
    model.graph.node.append(onnx.helper.make_node("Softmax", ["logits"], ["said"], axis=-1))
    model.graph.output[0].name = "said"
    onnx.save(model, classifier.path)
    with pytest.raises(UserError, match=r"giving logits, but .*as probabilities"):
        reference(classifier, torch.rand(2, 3, 24, 24))
    said = reference(replace(classifier, output="probabilities"), torch.rand(2, 3, 24, 24))
    np.testing.assert_allclose(said.sum(1), 1, atol=1e-5)


def test_numbers_of_pixels_up_to_255_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="divide them by 255"):
        parse_classifier(tmp_path / "x.onnx", "affectnet-8", "64,rgb,mean=124/116/104,std=58/57/57")
    assert parse_classifier(tmp_path / "x.onnx", "affectnet-8", "64,grey,std=0.00392").std


def test_the_input_specification_is_read(tmp_path: Path) -> None:
    path = tmp_path / "enet.onnx"
    found = parse_classifier(path, "hsemotion-8", "224,rgb,imagenet")
    assert (found.name, found.input_size, found.output) == ("enet", 224, "logits")
    assert found.mean == (0.485, 0.456, 0.406)
    half = parse_classifier(path, "affectnet-8", "64,rgb,mean=0.5/0.5/0.5,std=0.5/0.5/0.25")
    assert half.std == (0.5, 0.5, 0.25)
    grey = parse_classifier(path, "fer2013-csv", "48,grey,probabilities")
    assert (grey.channels, grey.mean, grey.std, grey.output) == (
        "grey",
        (0,),
        (1,),
        "probabilities",
    )


@pytest.mark.parametrize(
    "spec",
    [
        *("rgb,64", "64,abgr", "64,rgb,output=", "64,rgb,mean=a", "64,grey,imagenet", "0,rgb"),
        *("64,rgb,bgr", "64,rgb,logits,probabilities", "64,rgb,mean=nan/0/0", "64,grey,std=inf"),
    ],
)
def test_a_wrong_specification_is_refused(tmp_path: Path, spec: str) -> None:
    with pytest.raises(UserError, match="write"):
        parse_classifier(tmp_path / "x.onnx", "affectnet-8", spec)


def test_a_classifier_without_its_description_is_refused(tmp_path: Path) -> None:
    save_classifier(tmp_path / "bare.onnx", 3, 8)
    with pytest.raises(UserError, match="label_scheme, input_size"):
        read_classifier(tmp_path / "bare.onnx")


def test_an_unknown_field_of_a_description_is_refused(tmp_path: Path) -> None:
    save_classifier(tmp_path / "blue.onnx", 3, 8)
    fields = {"label_scheme": "affectnet-8", "input_size": 24, "mean": [0] * 3, "std": [1] * 3}
    (tmp_path / "blue.json").write_text(json.dumps(fields | {"chanels": "bgr"}))
    with pytest.raises(UserError, match="unknown field 'chanels'; the nearest is channels"):
        read_classifier(tmp_path / "blue.onnx")
    (tmp_path / "blue.json").write_text(json.dumps(fields | {"channels": "bgr"}))
    assert read_classifier(tmp_path / "blue.onnx").channels == "bgr"
