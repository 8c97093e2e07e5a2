"""Any ONNX image classifier as an engine: images [B, 3, H, W] in [0, 1] -> probabilities [B, K].

Resizing and normalisation go in front of it and softmax behind, as ONNX nodes.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
import torch.nn.functional as F
from onnx import TensorProto, compose, helper, numpy_helper, version_converter

from synfer_rt import labels
from synfer_rt.errors import UserError

IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
GREY = (0.299, 0.587, 0.114)
"""Luma of ITU-R BT.601."""

_MIN_OPSET = 13
_OUTPUTS = ("logits", "probabilities")


@dataclass(frozen=True)
class ClassifierSource:
    """An ONNX classifier [N, C, S, S] or [N, S, S, C] and what its input and output mean.

    It sees `(x - mean) / std` with x in [0, 1], resized to `input_size` pixels; `channels` is
    "rgb" or "grey", and mean and std have as many numbers. `output` is "logits" or
    "probabilities".
    """

    name: str
    path: Path
    label_scheme: str
    input_size: int
    channels: str
    mean: tuple[float, ...]
    std: tuple[float, ...]
    output: str = "logits"

    def __post_init__(self) -> None:
        labels.scheme(self.label_scheme)
        count = {"rgb": 3, "grey": 1}.get(self.channels)
        if count is None or self.output not in _OUTPUTS or self.input_size < 1:
            raise UserError(
                f"The classifier {self.name} has channels {self.channels!r}, output "
                f"{self.output!r}, size {self.input_size}; write rgb or grey, logits or "
                "probabilities, and a size of at least 1."
            )
        if len(self.mean) != count or len(self.std) != count or not all(self.std):
            raise UserError(
                f"The classifier {self.name} needs {count} numbers of mean and of std (none 0) for "
                f"{self.channels}, not {list(self.mean)} and {list(self.std)}; write as many."
            )


def parse_classifier(path: Path, label_scheme: str, spec: str) -> ClassifierSource:
    """Read `64,rgb,mean=0.5/0.5/0.5,std=0.5/0.5/0.5`, `224,rgb,imagenet` or `64,grey`.

    The size comes first; `probabilities` says that no softmax is missing; without mean and std the
    classifier sees [0, 1]. Raises UserError for anything else.
    """
    size, *words = [word.strip() for word in spec.split(",")]
    channels, output, mean, std = "rgb", "logits", None, None
    try:
        for word in words:
            key, _, value = word.partition("=")
            if word in ("rgb", "grey"):
                channels = word
            elif word == "imagenet":
                mean, std = IMAGENET
            elif word in _OUTPUTS:
                output = word
            elif key == "mean":
                mean = tuple(float(x) for x in value.split("/"))
            elif key == "std":
                std = tuple(float(x) for x in value.split("/"))
            else:
                raise ValueError(word)
        pixels = int(size)
    except ValueError as error:
        raise UserError(
            f"The classifier input {spec!r} cannot be read ({error}); write it like "
            "64,rgb,mean=0.5/0.5/0.5,std=0.5/0.5/0.5 or 224,rgb,imagenet."
        ) from None
    count = 3 if channels == "rgb" else 1
    mean, std = mean or (0.0,) * count, std or (1.0,) * count
    return ClassifierSource(path.stem, path, label_scheme, pixels, channels, mean, std, output)


def read_classifier(path: Path) -> ClassifierSource:
    """The classifier `path` as the JSON file of the same name beside it describes it.

    Raises UserError when that file is missing or wrong.
    """
    file = path.with_suffix(".json")
    try:
        fields = json.loads(file.read_bytes())
        return ClassifierSource(
            path.stem,
            path,
            fields["label_scheme"],
            int(fields["input_size"]),
            fields.get("channels", "rgb"),
            tuple(map(float, fields["mean"])),
            tuple(map(float, fields["std"])),
            fields.get("output", "logits"),
        )
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise UserError(
            f"{file} does not describe {path.name} ({type(error).__name__}: {error}); it needs "
            "label_scheme, input_size, mean and std."
        ) from None


def compose_classifier(
    source: ClassifierSource, image_size: tuple[int | str, int | str]
) -> onnx.ModelProto:
    """The classifier with its preparation and softmax, for images of `image_size` (H, W).

    Names instead of numbers leave the size free.

    Raises UserError when the file is no classifier of the kind that `source` describes.
    """
    try:
        core = onnx.load(source.path)
        onnx.checker.check_model(core)
        version = _opset(core)
        if version < _MIN_OPSET:
            core = version_converter.convert_version(core, _MIN_OPSET)
            version = _MIN_OPSET
    except Exception as error:  # protobuf, checker and converter raise their own kinds
        reason = str(error).strip().partition("\n")[0].rstrip(".")
        raise UserError(f"{source.path} is no ONNX model that can be read ({reason}).") from error
    weights = {tensor.name for tensor in core.graph.initializer}
    images = [value for value in core.graph.input if value.name not in weights]
    wanted = (len(source.mean), source.input_size, source.input_size)
    shape = _shape(images[0]) if len(images) == 1 else []
    channels_last = len(shape) == 4 and shape[1:] == [*wanted[1:], wanted[0]]
    fits = len(shape) == 4 and all(
        isinstance(found, str) or found == size
        for found, size in zip(shape[1:], wanted, strict=True)
    )
    if not (fits or channels_last) or not core.graph.output:
        raise UserError(
            f"{source.path} takes {[_shape(value) for value in images]}, not images "
            f"[batch, {', '.join(map(str, wanted))}]; say its input with --classifier-input."
        )
    if not isinstance(shape[0], str):
        raise UserError(
            f"{source.path} has the fixed batch {shape[0]}; export it with a dynamic batch."
        )
    classes, known = _shape(core.graph.output[0])[-1:], len(labels.scheme(source.label_scheme))
    if classes and classes[0] != known and not isinstance(classes[0], str):
        raise UserError(
            f"{source.path} has {classes[0]} classes, {source.label_scheme} has {known}; "
            "say its label scheme."
        )
    core = compose.add_prefix(core, "classifier/")
    # The classifier may say nothing of its inner shapes once the batch has our name.
    del core.graph.value_info[:]
    before = _preparation(source, image_size, channels_last, version, core.ir_version)
    after = _probabilities(source, version, core.ir_version)
    entry, exit = f"classifier/{images[0].name}", core.graph.output[0].name
    model = compose.merge_models(before, core, [("prepared", entry)])
    model = compose.merge_models(model, after, [(exit, "scores")], outputs=["probabilities"])
    model.producer_name, model.doc_string = "synfer-rt", ""
    del model.metadata_props[:]
    for node in model.graph.node:
        node.doc_string = ""
        del node.metadata_props[:]
    return model


def reference(source: ClassifierSource, images: torch.Tensor) -> torch.Tensor:
    """The same in PyTorch around the untouched ONNX file, to hold the engine against."""
    import onnxruntime

    size = (source.input_size, source.input_size)
    if images.shape[2:] != size:
        images = F.interpolate(images, size=size, mode="bilinear", align_corners=False)
    if source.channels == "grey":
        images = (images * torch.tensor(GREY)[:, None, None]).sum(1, keepdim=True)
    mean, std = (torch.tensor(v)[:, None, None] for v in (source.mean, source.std))
    images = (images - mean) / std
    session = onnxruntime.InferenceSession(str(source.path), providers=["CPUExecutionProvider"])
    entry = session.get_inputs()[0]
    if entry.shape[-1] == images.shape[1] and entry.shape[1] != images.shape[1]:
        images = images.permute(0, 2, 3, 1)
    scores = torch.from_numpy(session.run(None, {entry.name: images.contiguous().numpy()})[0])
    return scores.softmax(-1) if source.output == "logits" else scores


def _opset(model: onnx.ModelProto) -> int:
    return next(entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx"))


def _shape(value: onnx.ValueInfoProto) -> list[Any]:
    return [
        d.dim_value if d.HasField("dim_value") else d.dim_param or "?"
        for d in value.type.tensor_type.shape.dim
    ]


def _preparation(
    source: ClassifierSource,
    image_size: tuple[int | str, int | str],
    channels_last: bool,
    opset: int,
    ir_version: int,
) -> onnx.ModelProto:
    size, count = source.input_size, len(source.mean)
    nodes, constants = [], {}
    last = "images"

    def step(op: str, *inputs: str, **attributes: Any) -> None:
        nonlocal last
        name = f"prepare_{len(nodes)}"
        nodes.append(helper.make_node(op, [last, *inputs], [name], name=name, **attributes))
        last = name

    if image_size != (size, size):
        constants["first"], constants["two"] = np.array([0]), np.array([2])
        constants["edges"] = np.array([size, size])
        step("Shape")
        step("Slice", "first", "two")
        step("Concat", "edges", axis=0)
        shape, last = last, "images"
        how = {"mode": "linear", "coordinate_transformation_mode": "half_pixel"}
        step("Resize", "", "", shape, **how)
    if source.channels == "grey":
        constants["luma"] = np.array(GREY, "f4").reshape(1, 3, 1, 1)
        step("Conv", "luma")
    constants["mean"] = np.array(source.mean, "f4").reshape(-1, 1, 1)
    constants["std"] = np.array(source.std, "f4").reshape(-1, 1, 1)
    step("Sub", "mean")
    step("Div", "std")
    if channels_last:
        step("Transpose", perm=[0, 2, 3, 1])
    nodes[-1].output[0] = "prepared"
    shape = ["B", size, size, count] if channels_last else ["B", count, size, size]
    graph = helper.make_graph(
        nodes,
        "preparation",
        [helper.make_tensor_value_info("images", TensorProto.FLOAT, ["B", 3, *image_size])],
        [helper.make_tensor_value_info("prepared", TensorProto.FLOAT, shape)],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    return _model(graph, opset, ir_version)


def _probabilities(source: ClassifierSource, opset: int, ir_version: int) -> onnx.ModelProto:
    shape = ["B", len(labels.scheme(source.label_scheme))]
    op = {"logits": "Softmax", "probabilities": "Identity"}[source.output]
    attributes: dict[str, Any] = {"axis": -1} if op == "Softmax" else {}
    graph = helper.make_graph(
        [helper.make_node(op, ["scores"], ["probabilities"], name="probabilities", **attributes)],
        "probabilities",
        [helper.make_tensor_value_info("scores", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, shape)],
    )
    return _model(graph, opset, ir_version)


def _model(graph: onnx.GraphProto, opset: int, ir_version: int) -> onnx.ModelProto:
    return helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=ir_version
    )
