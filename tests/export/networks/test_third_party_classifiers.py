"""ONNX classifiers as others ship them: more scores, other orders, BGR, float16, one image each."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

pytest.importorskip("diffusers", reason="the build side needs synfer-rt[export]")
import onnxruntime
import torch
from onnx import TensorProto, helper, numpy_helper

from synfer_rt.errors import UserError
from synfer_rt.export.networks.classifier import parse_classifier, read_classifier
from synfer_rt.export.networks.image_network import compose_network, reference
from synfer_rt.vocabulary import label_schemes

SIZE = 6
IMAGES = np.random.default_rng(3).random((3, 3, SIZE, SIZE), np.float32)
FIRST = ",".join(label_schemes.scheme("hsemotion-8"))


def weights(scores: int, channels: int = 3) -> np.ndarray:
    draw = np.random.default_rng(scores)
    return draw.standard_normal((channels * SIZE * SIZE, scores)).astype("f4") * 0.3


def save_linear(
    path: Path,
    scores: int,
    *,
    channels: int = 3,
    batch: int | str = "N",
    kind: int = TensorProto.FLOAT,
    shape: tuple[int, ...] | None = None,
    softmax: bool = False,
    others: int = 0,
) -> Path:
    """Scores that are sums of weighted pixels; `shape` is what the pixels are reshaped to.

    `others` are as many scores of another output, which comes first.
    """
    array = weights(scores, channels).astype(helper.tensor_dtype_to_np_dtype(kind))
    shape = shape or (-1, len(array))
    initializers = [
        numpy_helper.from_array(array, "w"),
        numpy_helper.from_array(np.array(shape, np.int64), "shape"),
    ]
    nodes = [
        helper.make_node("Reshape", ["x", "shape"], ["flat"]),
        helper.make_node("MatMul", ["flat", "w"], ["logits"]),
    ]
    outputs = [helper.make_tensor_value_info("logits", kind, [batch, scores])]
    if softmax:
        nodes.append(helper.make_node("Softmax", ["logits"], ["said"], axis=-1))
        outputs = [helper.make_tensor_value_info("said", kind, [batch, scores])]
    if others:
        initializers.append(numpy_helper.from_array(-array[:, :others], "v"))
        nodes.append(helper.make_node("MatMul", ["flat", "v"], ["features"]))
        outputs.insert(0, helper.make_tensor_value_info("features", kind, [batch, others]))
    image = helper.make_tensor_value_info("x", kind, [batch, channels, SIZE, SIZE])
    graph = helper.make_graph(nodes, "linear", [image], outputs, initializers)
    opsets = [helper.make_opsetid("", 17)]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=8), path)
    return path


def softmax(scores: np.ndarray) -> np.ndarray:
    powers = np.exp(scores - scores.max(1, keepdims=True))
    return powers / powers.sum(1, keepdims=True)


def probabilities(path: Path, scheme: str, spec: str) -> np.ndarray:
    """What the engine says of IMAGES, which must be what its reference says."""
    source = parse_classifier(path, scheme, spec)
    model = compose_network(source, (SIZE, SIZE))
    onnx.checker.check_model(model, full_check=True)
    session = onnxruntime.InferenceSession(model.SerializeToString())
    found = np.asarray(session.run(["probabilities"], {"images": IMAGES})[0])
    wanted = reference(source, torch.from_numpy(IMAGES)).numpy()
    np.testing.assert_allclose(found, wanted, atol=1e-6)
    alone = [np.asarray(session.run(None, {"images": image[None]})[0]) for image in IMAGES]
    np.testing.assert_allclose(np.concatenate(alone), found, atol=1e-6)
    return found


def linear(scores: int, pixels: np.ndarray = IMAGES) -> np.ndarray:
    return pixels.reshape(3, -1) @ weights(scores, pixels.shape[1])


def test_scores_that_are_no_expressions_are_left_out_before_the_softmax(tmp_path: Path) -> None:
    path = save_linear(tmp_path / "mtl.onnx", 10)
    found = probabilities(path, f"{FIRST},-,-", f"{SIZE},rgb")
    np.testing.assert_allclose(found, softmax(linear(10)[:, :8]), atol=1e-5)
    source = parse_classifier(path, f"{FIRST},-,-", f"{SIZE},rgb")
    assert label_schemes.scheme(source.expressions) == label_schemes.scheme("hsemotion-8")


def test_they_may_stand_anywhere(tmp_path: Path) -> None:
    path = save_linear(tmp_path / "odd.onnx", 5)
    found = probabilities(path, "-,Sad,unknown,happiness,neutral", f"{SIZE},rgb")
    np.testing.assert_allclose(found, softmax(linear(5)[:, [1, 3, 4]]), atol=1e-5)


def test_probabilities_are_shared_anew_among_expressions(tmp_path: Path) -> None:
    path = save_linear(tmp_path / "said.onnx", 10, softmax=True)
    found = probabilities(path, f"{FIRST},unknown,no face", f"{SIZE},rgb,probabilities")
    wanted = softmax(linear(10))[:, :8]
    np.testing.assert_allclose(found, wanted / wanted.sum(1, keepdims=True), atol=1e-5)
    with pytest.raises(UserError, match="describe its output as probabilities"):
        reference(parse_classifier(path, f"{FIRST},-,-", f"{SIZE},rgb"), torch.from_numpy(IMAGES))


def test_the_refusal_of_more_scores_says_what_to_write(tmp_path: Path) -> None:
    path = save_linear(tmp_path / "mtl.onnx", 10)
    source = parse_classifier(path, "hsemotion-8", f"{SIZE},rgb")
    with pytest.raises(UserError, match="has 10 scores, hsemotion-8 has 8") as refused:
        compose_network(source, (SIZE, SIZE))
    remedy = f"{FIRST},-,-"
    assert f'`classifier_labels=["{remedy}"]`' in str(refused.value)
    compose_network(parse_classifier(path, remedy, f"{SIZE},rgb"), (SIZE, SIZE))


def test_an_order_of_ones_own_is_a_scheme_in_words_and_in_json(tmp_path: Path) -> None:
    path = save_linear(tmp_path / "own.onnx", 4)
    found = probabilities(path, "happy,sad,neutral,angry", f"{SIZE},rgb")
    np.testing.assert_allclose(found, softmax(linear(4)), atol=1e-5)
    fields = {"input_size": SIZE, "mean": [0] * 3, "std": [1] * 3}
    fields["label_scheme"] = ["happy", "sad", "neutral", "angry"]
    path.with_suffix(".json").write_text(json.dumps(fields))
    source = read_classifier(path)
    assert label_schemes.scheme(source.expressions) == ("happy", "sad", "neutral", "anger")


def test_blue_may_come_first(tmp_path: Path) -> None:
    path = save_linear(tmp_path / "bgr.onnx", 7)
    found = probabilities(path, "raf-db", f"{SIZE},bgr,imagenet")
    mean = np.array([0.485, 0.456, 0.406]).reshape(3, 1, 1)  # of red, green, blue
    std = np.array([0.229, 0.224, 0.225]).reshape(3, 1, 1)
    wanted = softmax(linear(7, ((IMAGES - mean) / std)[:, ::-1]))
    np.testing.assert_allclose(found, wanted, atol=1e-5)
    own = probabilities(path, "raf-db", f"{SIZE},bgr,mean=0.1/0.2/0.3")
    shifted = IMAGES[:, ::-1] - np.array([0.1, 0.2, 0.3]).reshape(3, 1, 1)
    np.testing.assert_allclose(own, softmax(linear(7, shifted)), atol=1e-5)


def test_float16_is_computed_in_float32(tmp_path: Path) -> None:
    path = save_linear(tmp_path / "half.onnx", 7, kind=TensorProto.FLOAT16)
    found = probabilities(path, "raf-db", f"{SIZE},rgb")
    exact = IMAGES.reshape(3, -1) @ weights(7).astype("f2").astype("f4")
    np.testing.assert_allclose(found, softmax(exact), atol=1e-5)


@pytest.mark.parametrize("shape", [(1, 36), (1, -1), (-1, 36)])
def test_a_file_for_one_image_becomes_one_for_any_number(tmp_path: Path, shape: tuple) -> None:
    path = save_linear(tmp_path / "one.onnx", 8, channels=1, batch=1, shape=shape)
    found = probabilities(path, "ferplus", f"{SIZE},grey,std=0.1")
    grey = np.tensordot([0.299, 0.587, 0.114], IMAGES, ((0,), (1,)))[:, None] / 0.1
    np.testing.assert_allclose(found, softmax(linear(8, grey)), atol=1e-5)


def test_another_fixed_batch_is_refused(tmp_path: Path) -> None:
    path = save_linear(tmp_path / "four.onnx", 7, batch=4)
    source = parse_classifier(path, "raf-db", f"{SIZE},rgb")
    with pytest.raises(UserError, match="has the fixed batch 4; export it with a dynamic batch"):
        compose_network(source, (SIZE, SIZE))


def test_a_batch_that_is_fixed_within_is_refused(tmp_path: Path) -> None:
    path = save_linear(tmp_path / "within.onnx", 7, batch=1)
    model = onnx.load(path)
    # The mean over everything is that over the pixels for one image alone.
    model.graph.node.append(helper.make_node("ReduceMean", ["logits"], ["mean"], axes=[0, 1]))
    model.graph.node.append(helper.make_node("Sub", ["logits", "mean"], ["centred"]))
    model.graph.output[0].name = "centred"
    onnx.save(model, path)
    source = parse_classifier(path, "raf-db", f"{SIZE},rgb")
    with pytest.raises(UserError, match=r"fixed batch 1, also inside \(several images"):
        compose_network(source, (SIZE, SIZE))


def test_the_output_that_fits_is_taken_and_one_in_doubt_asked_for(tmp_path: Path) -> None:
    path = save_linear(tmp_path / "two.onnx", 7, others=2)
    wanted = softmax(linear(7))
    np.testing.assert_allclose(probabilities(path, "raf-db", f"{SIZE},rgb"), wanted, atol=1e-5)
    path = save_linear(tmp_path / "same.onnx", 7, others=7)
    source = parse_classifier(path, "raf-db", f"{SIZE},rgb")
    with pytest.raises(UserError, match=r"outputs features \['N', 7\], logits .*which one has"):
        compose_network(source, (SIZE, SIZE))
    named = f"{SIZE},rgb,output=logits"
    np.testing.assert_allclose(probabilities(path, "raf-db", named), wanted, atol=1e-5)
    other: Any = parse_classifier(path, "raf-db", f"{SIZE},rgb,output=scores")
    with pytest.raises(UserError, match="which one has the scores is not known; write output=NAME"):
        compose_network(other, (SIZE, SIZE))


def test_scores_may_be_maps_of_one_pixel(tmp_path: Path) -> None:
    path = save_linear(tmp_path / "maps.onnx", 7)
    model = onnx.load(path)
    model.graph.initializer.append(numpy_helper.from_array(np.array([2, 3]), "axes"))
    model.graph.node.append(helper.make_node("Unsqueeze", ["logits", "axes"], ["maps"]))
    output = helper.make_tensor_value_info("maps", TensorProto.FLOAT, ["N", 7, 1, 1])
    model.graph.output[0].CopyFrom(output)
    onnx.save(model, path)
    found = probabilities(path, "raf-db", f"{SIZE},rgb")
    np.testing.assert_allclose(found, softmax(linear(7)), atol=1e-5)
    with pytest.raises(UserError, match="7 scores, affectnet-8 has 8"):
        compose_network(parse_classifier(path, "affectnet-8", f"{SIZE},rgb"), (SIZE, SIZE))


@pytest.mark.parametrize("size", [SIZE, 9])
def test_an_old_file_for_one_image_lists_its_weights_among_its_inputs(
    tmp_path: Path, size: int
) -> None:
    """As CNTK wrote FER+'s network: opset 7, intermediate representation 3, batch 1."""
    path = save_linear(tmp_path / "old.onnx", 8, channels=1, batch=1, shape=(1, SIZE * SIZE))
    model = onnx.load(path)
    model.ir_version, model.opset_import[0].version = 3, 7
    model.graph.input.extend(
        helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims)
        for tensor in model.graph.initializer
    )
    onnx.save(model, path)
    source = parse_classifier(path, "ferplus", f"{SIZE},grey,std=0.1")
    images = np.random.default_rng(4).random((3, 3, size, size), np.float32)
    model = compose_network(source, (size, size))
    session = onnxruntime.InferenceSession(model.SerializeToString())
    found = np.asarray(session.run(["probabilities"], {"images": images})[0])
    wanted = reference(source, torch.from_numpy(images)).numpy()
    np.testing.assert_allclose(found, wanted, atol=1e-5)


@pytest.mark.parametrize("shape", [["N", SIZE, SIZE, 3], ["N", "H", "W", 3], [1, SIZE, SIZE, 3]])
def test_colours_may_come_last(tmp_path: Path, shape: list) -> None:
    path = save_linear(tmp_path / "last.onnx", 7, batch=shape[0])
    model = onnx.load(path)
    image = helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)
    model.graph.input[0].CopyFrom(image)
    onnx.save(model, path)
    found = probabilities(path, "raf-db", f"{SIZE},rgb")
    pixels = IMAGES.transpose(0, 2, 3, 1).reshape(3, -1)
    np.testing.assert_allclose(found, softmax(pixels @ weights(7)), atol=1e-5)


def test_an_output_of_open_length_beside_features_is_the_scores(tmp_path: Path) -> None:
    path = save_linear(tmp_path / "open.onnx", 7, others=5)
    model = onnx.load(path)
    model.graph.output[1].type.tensor_type.shape.dim[1].dim_param = "classes"
    onnx.save(model, path)
    found = probabilities(path, "raf-db", f"{SIZE},rgb")
    np.testing.assert_allclose(found, softmax(linear(7)), atol=1e-5)


def test_scores_without_a_batch_are_refused(tmp_path: Path) -> None:
    path = save_linear(tmp_path / "squeezed.onnx", 7, batch=1)
    model = onnx.load(path)
    model.graph.node.append(helper.make_node("Flatten", ["logits"], ["row"], axis=0))
    model.graph.initializer.append(numpy_helper.from_array(np.array([0]), "first"))
    model.graph.node.append(helper.make_node("Squeeze", ["row", "first"], ["said"]))
    said = helper.make_tensor_value_info("said", TensorProto.FLOAT, [7])
    model.graph.output[0].CopyFrom(said)
    onnx.save(model, path)
    source = parse_classifier(path, "raf-db", f"{SIZE},rgb")
    with pytest.raises(UserError, match=r"said \[7\], without a batch; .* is \[batch, 7\]"):
        compose_network(source, (SIZE, SIZE))


def save_with_branches(path: Path, opset: int) -> Path:
    """save_linear's scores by an If and a Loop, which take images and weights from outside.

    One branch negates; the loop adds the scores twice to zeros.
    """

    def branch(name: str, op: str) -> onnx.GraphProto:
        nodes = [
            helper.make_node("Flatten", ["images"], [f"{name}_flat"]),
            helper.make_node("MatMul", [f"{name}_flat", "w"], [f"{name}_product"]),
            helper.make_node(op, [f"{name}_product"], [name]),
        ]
        output = helper.make_tensor_value_info(name, TensorProto.FLOAT, None)
        return helper.make_graph(nodes, name, [], [output])

    def value(name: str, kind: int, shape: list | None) -> onnx.ValueInfoProto:
        return helper.make_tensor_value_info(name, kind, shape)

    body = helper.make_graph(
        [
            helper.make_node("Add", ["before", "one"], ["after"]),
            helper.make_node("Identity", ["going"], ["goes"]),
        ],
        "body",
        [
            value("i", TensorProto.INT64, []),
            value("going", TensorProto.BOOL, []),
            value("before", TensorProto.FLOAT, None),
        ],
        [value("goes", TensorProto.BOOL, []), value("after", TensorProto.FLOAT, None)],
    )
    nodes = [
        helper.make_node("ReduceMin", ["images"], ["least"], keepdims=0),
        helper.make_node("Less", ["least", "zero"], ["negative"]),
        helper.make_node(
            "If",
            ["negative"],
            ["one"],
            then_branch=branch("minus", "Neg"),
            else_branch=branch("plus", "Identity"),
        ),
        helper.make_node("Sub", ["one", "one"], ["none"]),
        helper.make_node("Loop", ["times", "", "none"], ["scores"], body=body),
    ]
    constants = {"w": weights(7), "zero": np.float32(0), "times": np.int64(2)}
    graph = helper.make_graph(
        nodes,
        "branches",
        [value("images", TensorProto.FLOAT, ["N", 3, SIZE, SIZE])],
        [value("scores", TensorProto.FLOAT, ["N", 7])],
        [numpy_helper.from_array(np.asarray(array), name) for name, array in constants.items()],
    )
    opsets = [helper.make_opsetid("", opset)]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=8), path)
    return path


@pytest.mark.parametrize("opset", [9, 11, 13, 17])
def test_branches_and_loops_keep_what_they_take_from_outside(tmp_path: Path, opset: int) -> None:
    path = save_with_branches(tmp_path / "branches.onnx", opset)
    found = probabilities(path, "raf-db", f"{SIZE},rgb")
    np.testing.assert_allclose(found, softmax(2 * linear(7)), atol=1e-5)
    found = probabilities(path, "raf-db", f"{SIZE},rgb,mean=1/1/1")  # no pixel is above 0
    np.testing.assert_allclose(found, softmax(-2 * linear(7, IMAGES - 1)), atol=1e-5)


@pytest.mark.parametrize("expanded", [False, True])
def test_a_file_for_one_image_may_join_a_class_token(tmp_path: Path, expanded: bool) -> None:
    """As a vision transformer does that was exported for one image: [1, 1, D] beside its patches.

    torch's older exporter expands it first, to a size that it computes; the newer one says that 0
    in the shape of a Reshape is no size to keep. Two patches are the halves of an image; places
    that are computed of constants are added, the sine of the token to the last patch.
    """
    path = save_linear(tmp_path / "token.onnx", 7, batch=1)
    model, half = onnx.load(path), 3 * SIZE * SIZE // 2
    token, own = weights(4)[:half, :1].T, weights(7)[:half] / 2
    constants = {"token": token[None], "whole": np.concatenate([own, weights(7)])}
    constants |= {"patches": np.array([1, 2, -1]), "all": np.array([1, 3 * half])}
    constants |= {"ones": np.array([1, 1]), "width": np.array([half])}
    constants["none"] = np.zeros((1, 2, half), np.float32)
    del model.graph.node[:], model.graph.initializer[:]
    model.graph.initializer.extend(numpy_helper.from_array(a, n) for n, a in constants.items())
    joined = ["expanded" if expanded else "token", "tokens"]
    model.graph.node.extend(
        [
            helper.make_node("Reshape", ["x", "patches"], ["tokens"], allowzero=1),
            helper.make_node("Concat", ["ones", "width"], ["size"], axis=0),
            helper.make_node("Expand", ["token", "size"], ["expanded"]),
            helper.make_node("Concat", joined, ["sequence"], axis=1),
            helper.make_node("Sin", ["token"], ["sine"]),
            helper.make_node("Concat", ["none", "sine"], ["places"], axis=1),
            helper.make_node("Add", ["sequence", "places"], ["placed"]),
            helper.make_node("Reshape", ["placed", "all"], ["flat"]),
            helper.make_node("MatMul", ["flat", "whole"], ["logits"]),
        ]
    )
    onnx.save(model, path)
    found = probabilities(path, "raf-db", f"{SIZE},rgb")
    wanted = token @ own + linear(7) + np.sin(token) @ weights(7)[half:]
    np.testing.assert_allclose(found, softmax(wanted), atol=1e-5)
