"""Image classifiers of transformers as guides: their engines hold autograd's gradient."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("transformers", reason="the build side needs synfer-rt[export]")
import onnx
import onnx_ir as ir
import onnxruntime
import torch
import transformers
from torch import Tensor, nn

from synfer_rt.errors import UserError
from synfer_rt.export.networks.guide import LatentGuide
from synfer_rt.export.networks.guiding_classifier import ExpressionLoss, read_guiding
from synfer_rt.export.onnx.any_batch import BATCH, any_batch
from synfer_rt.export.onnx.gradient_graph import _slice_backward, export_gradient

WORDS = ["angry", "disgust", "fear", "happy", "neutral", "sad", "surprise"]
LABELS = {"id2label": dict(enumerate(WORDS))}
SHAPE = (3, 16, 16)
ATTENTION = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
SQUARE = {"image_processor_type": "ViTImageProcessor"}
CROPPED = {"image_processor_type": "ConvNextImageProcessor"}
TWICE = {"image_processor_type": "EfficientNetImageProcessor"}  # normalised
NARROW = {
    "in_channels": [32, 16],
    "out_channels": [16, 24],
    "kernel_sizes": [3, 5],
    "strides": [1, 2],
    "expand_ratios": [1, 6],
    "num_block_repeats": [1, 2],
    "depthwise_padding": [1],
    "width_coefficient": 0.1,
    "depth_coefficient": 1.0,
    "hidden_dim": 128,
}
STAGES = {"hidden_sizes": [8, 12, 16, 24], "depths": [1, 1, 1, 1]}

QUICK = ("resnet", "swin", "vit")
"""Kinds that every run of the tests tries; the others are left to `-m slow`."""

KINDS: dict[str, tuple[str, dict[str, Any], int, dict[str, Any]]] = {
    "vit": ("ViT", ATTENTION | {"intermediate_size": 16, "patch_size": 8}, 24, SQUARE),
    # Its position embeddings are resized within the network, from those of 42 pixels.
    "dinov2": ("Dinov2", ATTENTION | {"patch_size": 7, "image_size": 42}, 28, SQUARE),
    # Windows of 3 in maps of 8: padded, and shifted behind a mask.
    "swin": (
        "Swin",
        {"patch_size": 2, "embed_dim": 8, "depths": [2], "num_heads": [2], "window_size": 3},
        16,
        SQUARE,
    ),
    "resnet": (
        "ResNet",
        {"embedding_size": 8, "hidden_sizes": [8, 16], "depths": [1, 1]},
        24,
        SQUARE,
    ),
    "convnext": ("ConvNext", STAGES, 32, CROPPED),
    # Average pooling beyond the image, depthwise convolutions with uneven padding, gates.
    "efficientnet": ("EfficientNet", NARROW, 24, TWICE),
}


def save(kind: str, folder: Path) -> None:
    """A classifier of this kind as transformers saves it, all of its weights at random."""
    name, fields, size, processor = KINDS[kind]
    config = getattr(transformers, f"{name}Config")(**{"image_size": size, **fields, **LABELS})
    torch.manual_seed(0)
    model: Any = getattr(transformers, f"{name}ForImageClassification")(config)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d):  # without statistics, signals would vanish
                nn.init.uniform_(module.weight, 0.5, 1.5)
                module.momentum = None
        model.train()(pixel_values=torch.randn(8, 3, size, size))
    model.save_pretrained(folder)
    sizes = {"shortest_edge": size} if processor is CROPPED else {"height": size, "width": size}
    (folder / "preprocessor_config.json").write_text(json.dumps({**processor, "size": sizes}))


def drawn(batch: int, *shape: int) -> Tensor:
    """Random numbers of which each sample's do not depend on the batch."""
    return torch.stack(
        [torch.randn(shape, generator=torch.Generator().manual_seed(i)) for i in range(batch)]
    )


def inputs(batch: int) -> dict[str, Tensor]:
    return {
        "latents": drawn(batch, *SHAPE),
        "prediction": drawn(batch, *SHAPE).flip(1),
        "next_latents": drawn(batch, *SHAPE).flip(2),
        "next_history": drawn(batch, 3, *SHAPE),
        "coefficients": torch.linspace(-1, 2, 20).view(4, 5),
        "clean": torch.tensor([0.8, -0.6]),
        "target": drawn(batch, 8).softmax(-1),
        "strength": 0.1 + drawn(batch).abs(),
    }


def export(module: nn.Module, path: Path) -> onnxruntime.InferenceSession:
    names = ("guided_latents", "guided_history")
    static = frozenset({"clean", "coefficients"})
    export_gradient(module, inputs(2), names, static, path, "fp32")
    return onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])


@pytest.mark.parametrize(
    "kind", [pytest.param(kind, marks=[pytest.mark.slow] * (kind not in QUICK)) for kind in KINDS]
)
def test_its_engine_moves_images_as_autograd_says(kind: str, tmp_path: Path) -> None:
    save(kind, tmp_path)
    classifier, names = read_guiding(tmp_path)
    loss = ExpressionLoss(classifier, names, "affectnet-8")
    session = export(LatentGuide(loss).requires_grad_(False).eval(), tmp_path / "guide.onnx")
    assert_moves_as(loss, session, 1e-5)
    nodes = onnx.load(tmp_path / "guide.onnx").graph.node
    # Places of maxima, which TensorRT does not have as an output, are not asked for.
    assert not any(len(node.output) > 1 for node in nodes if node.op_type == "MaxPool")


def assert_moves_as(loss: nn.Module, session: onnxruntime.InferenceSession, within: float) -> None:
    """The engine of a LatentGuide moves images as autograd of `loss` says."""
    for batch in (1, 3):
        given = inputs(batch)
        found = session.run(None, {name: value.numpy() for name, value in given.items()})
        clean = (0.8 * given["latents"] - 0.6 * given["prediction"]).requires_grad_()
        gradient = torch.autograd.grad(loss(clean, given["target"]), clean)[0]
        rms = gradient.square().mean((1, 2, 3), keepdim=True).sqrt()
        assert rms.min() > 1e-6  # there is something to compare
        push = given["strength"].view(-1, 1, 1, 1) / 0.6 * gradient / rms
        moved = given["next_latents"] + given["coefficients"][0, 1] * push
        off = np.abs(np.asarray(found[0]) - moved.numpy()).max()
        assert off < within * float((moved - given["next_latents"]).abs().max())


def test_a_gradient_that_cannot_be_exported_is_refused(tmp_path: Path) -> None:
    class Reads(nn.Module):
        """What it computes depends on a number that it looks at."""

        def forward(self, x: Tensor) -> Tensor:
            return x.flatten(1)[:, :7] * x.mean().item()

    loss = ExpressionLoss(
        Reads(), ("happy", "sad", *WORDS[1:3], "anger", "neutral", "surprise"), "affectnet-8"
    )
    with pytest.raises(
        UserError, match=r"guide of this checkpoint cannot be exported.*give another"
    ):
        export(LatentGuide(loss), tmp_path / "guide.onnx")


@pytest.mark.parametrize(
    ("start", "end", "step"), [(0, 9, 1), (2, 7, 1), (-4, 9, 1), (1, 9, 2), (0, 9, 3), (5, 9, 5)]
)
def test_the_gradient_of_a_slice_goes_back_to_its_places(start: int, end: int, step: int) -> None:
    x = torch.randn(2, 9, 3, requires_grad=True)
    gradient = torch.randn_like(x[:, start % 9 : end : step])
    wanted = torch.autograd.grad(x[:, start % 9 : end : step], x, gradient)[0]
    found = _slice_backward(gradient, x.shape, 1, start, end, step)
    torch.testing.assert_close(found, wanted)


def tensor(name: str, array: np.ndarray) -> ir.Value:
    value = ir.Value(name=name, const_value=ir.tensor(array))
    value.shape, value.type = ir.Shape(array.shape), ir.TensorType(ir.tensor(array).dtype)
    return value


@pytest.mark.parametrize("stored", [True, False])
@pytest.mark.parametrize("times", [1, 4])
def test_what_repeats_rows_for_each_sample_repeats_them_for_any(times: int, stored: bool) -> None:
    """As the zeros do that the gradient of pooling by maximum is added to; large ones are made."""
    rows = np.arange(times * 3, dtype=np.float32).reshape(times, 3) if stored else np.ones((1, 3))
    rows = rows.astype(np.float32)
    x = ir.Value(name="x", type=ir.TensorType(ir.DataType.FLOAT), shape=ir.Shape([BATCH, 3]))
    shape = tensor("target", np.array([BATCH, times * 3]))
    weights, nodes = [shape], []
    if stored:
        repeated = tensor("rows", np.tile(rows, (BATCH, 1)))
        weights.append(repeated)
    else:
        weights += [tensor("one", rows), tensor("many", np.array([BATCH * times, 3]))]
        nodes.append(ir.node("Expand", weights[1:]))
        repeated = nodes[0].outputs[0]
        repeated.name, repeated.type, repeated.shape = "rows", x.type, ir.Shape([BATCH * times, 3])
    nodes.append(ir.node("Reshape", [repeated, shape]))
    y = nodes[-1].outputs[0]
    y.name, y.type, y.shape = "y", x.type, ir.Shape([BATCH, times * 3])
    graph = ir.Graph([x], [y], nodes=nodes, initializers=weights, opset_imports={"": 18})
    model = ir.Model(graph, ir_version=10)
    any_batch(model, frozenset(), "guide")
    session = onnxruntime.InferenceSession(ir.to_proto(model).SerializeToString())
    found = session.run(None, {"x": np.zeros((2, 3), np.float32)})[0]
    wanted = np.broadcast_to(rows, (times, 3)).reshape(1, -1)
    np.testing.assert_array_equal(found, np.tile(wanted, (2, 1)))
