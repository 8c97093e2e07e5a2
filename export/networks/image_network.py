"""ONNX networks of images as engines: images [B, 3, H, W] in [0, 1] -> probabilities or AUs.

Resizing and normalisation are put in front of the network as ONNX nodes, and the rest of the work
on its scores behind it.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import onnx
import torch
from onnx import GraphProto, NodeProto, TensorProto, helper, numpy_helper

from synfer_rt.backends.sessions import FLOAT_ACTIVATIONS
from synfer_rt.data.pixels import GREY
from synfer_rt.errors import UserError
from synfer_rt.export.networks.resizing import resize, resized
from synfer_rt.export.onnx import model_file
from synfer_rt.export.onnx.fixed_batch import with_free_batch
from synfer_rt.export.onnx.half import in_float32
from synfer_rt.export.onnx.opset import at_least_minimum, without_weights_among_inputs
from synfer_rt.export.sentences import first_line
from synfer_rt.networks.descriptions import check

INPUT_FIELDS = ("input_size", "channels", "mean", "std", "output", "output_name")
"""The fields of a JSON description that are about a network's input and output."""

PREPARED, SCORES = "prepared", "scores"
"""What a network takes and gives within its engine."""


@dataclass(frozen=True)
class Ending:
    """The nodes after a network's `count` scores, from "scores" to the engine's `output`.

    `size` is the length of a row of the output. `scores` and `known_by` are for messages: what the
    scores are, and what their number is known from. `beside` are outputs of one number a row.
    """

    output: str
    scores: str
    known_by: str
    count: int
    size: int
    nodes: Sequence[NodeProto]
    constants: Mapping[str, np.ndarray]
    beside: tuple[str, ...] = ()

    def suffixed(self, suffix: str) -> Ending:
        """The same nodes with `suffix` after all names but those of the outputs beside."""

        def new(names: Iterable[str]) -> list[str]:
            return [name if name in self.beside else f"{name}{suffix}" for name in names]

        nodes: list[NodeProto] = []
        for node in self.nodes:
            nodes.append(copied := NodeProto())
            copied.CopyFrom(node)
            copied.name = f"{node.name}{suffix}"
            copied.input[:], copied.output[:] = new(node.input), new(node.output)
        constants = {f"{name}{suffix}": value for name, value in self.constants.items()}
        return replace(self, output=f"{self.output}{suffix}", nodes=nodes, constants=constants)


@dataclass(frozen=True)
class ImageNetwork(ABC):
    """An ONNX network [N, C, S, S] or [N, S, S, C] -> scores [N, K], and how its input is prepared.

    Its input is `(x - mean) / std` with x in [0, 1], resized to `input_size` pixels; `channels` is
    a key of CHANNELS (networks/descriptions.py), and mean and std have as many numbers, in that
    order. `output` is one of OUTPUTS, `output_name` the output that has the scores, None if only
    one can be meant.
    """

    KIND: ClassVar[str]
    OUTPUTS: ClassVar[tuple[str, ...]]
    INPUT_REMEDY: ClassVar[str]
    OUTPUT_NAME: ClassVar[str]
    """What to do to name the output that has the scores."""

    name: str
    path: Path
    input_size: int
    channels: str
    mean: tuple[float, ...]
    std: tuple[float, ...]
    output: str = "logits"
    output_name: str | None = None

    def __post_init__(self) -> None:
        check(f"The {self.KIND} {self.name}", self.OUTPUTS, self)

    @property
    def heads(self) -> Sequence[ImageNetwork]:
        """The network once for each of its outputs that is used, in their order."""
        return (self,)

    @property
    def suffix(self) -> str:
        """What stands after the names of this head's nodes and outputs in the engine."""
        return ""

    @abstractmethod
    def ending(self) -> Ending:
        """The nodes after the scores."""

    @abstractmethod
    def finish(self, scores: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """The same computation in PyTorch: the engine's outputs from these scores."""

    @abstractmethod
    def doubt(self, scores: np.ndarray) -> str | None:
        """Why `scores` [N, K] of a few images cannot be of the kind `output`; None if they can."""

    @abstractmethod
    def count_remedy(self, found: int) -> str:
        """What to do if the file has `found` scores and its description another number."""

    @staticmethod
    def input_fields(fields: Mapping[str, Any]) -> dict[str, Any]:
        """The arguments about input and output, from a description in JSON."""
        return {
            "input_size": int(fields["input_size"]),
            "channels": fields.get("channels", "rgb"),
            "mean": tuple(map(float, fields["mean"])),
            "std": tuple(map(float, fields["std"])),
            "output": fields.get("output", "logits"),
            "output_name": fields.get("output_name"),
        }


def compose_network(
    network: ImageNetwork, image_size: tuple[int | str, int | str]
) -> onnx.ModelProto:
    """The network with its preparation and its ending, for images of `image_size` (H, W).

    Names instead of numbers leave the size free. Raises UserError for a file that is not a network
    as `network` describes it.
    """
    try:
        core = model_file.load(network.path)
        onnx.checker.check_model(core)
        core = without_weights_among_inputs(at_least_minimum(in_float32(core)))
    except Exception as error:  # protobuf, checker and converter raise errors of their own
        reason = first_line(error)
        raise UserError(
            f"{network.path} is not an ONNX model that can be read ({reason}); export it again."
        ) from error
    images = list(core.graph.input)
    wanted = (len(network.mean), network.input_size, network.input_size)
    shape = _shape(images[0]) if len(images) == 1 else []
    channels_first = _fits(shape, wanted)
    channels_last = not channels_first and _fits(shape, (*wanted[1:], wanted[0]))
    if not (channels_first or channels_last) or not core.graph.output:
        raise UserError(
            f"{network.path} takes {[_shape(value) for value in images]}, not images "
            f"[batch, {', '.join(map(str, wanted))}]; {network.INPUT_REMEDY}."
        )
    outputs = {value.name: _shape(value) for value in core.graph.output}
    endings = {head.suffix: (_checked(head, outputs), head.ending()) for head in network.heads}
    if not isinstance(shape[0], str):
        core = with_free_batch(core, network.path)
    prefix = name_prefix(network.KIND)
    before = _preparation(network, image_size, channels_last)
    _prefix_names(core, prefix, images[0].name)
    _begin(core.graph, before)
    for suffix, (chosen, ending) in endings.items():
        _end(core.graph, f"{prefix}{chosen}", suffix, ending.suffixed(suffix))
    core.producer_name, core.doc_string = "synfer-rt", ""
    del core.metadata_props[:]
    for graph in model_file.graphs(core.graph):
        for node in graph.node:
            node.doc_string = ""
            del node.metadata_props[:]
    return core


def name_prefix(kind: str) -> str:
    """What stands before the names of a network of `kind` in its engine."""
    return f"{kind.replace(' ', '_')}/"


def _checked(network: ImageNetwork, outputs: Mapping[str, Sequence[Any]]) -> str:
    """The name of the output that has the scores, whose shape fits."""
    chosen = _scores_of(network, outputs)
    if len(outputs[chosen]) == 1:
        raise UserError(
            f"{network.path} has the output {chosen} {outputs[chosen]}, without a batch; export it "
            f"with a dynamic batch, so that the output is [batch, {network.ending().count}]."
        )
    if outputs[chosen] and not isinstance(found := _count(outputs[chosen]), str):
        _check_count(network, found)
    return chosen


def reference(network: ImageNetwork, images: torch.Tensor) -> torch.Tensor:
    """The first of `reference_outputs`, which is all of an engine with one output."""
    return reference_outputs(network, images)[0]


def reference_outputs(network: ImageNetwork, images: torch.Tensor) -> tuple[torch.Tensor, ...]:
    """The reference for the engine: what each head's scores become (`finish`).

    Raises UserError if ONNX Runtime cannot run the file on float32 images, and if its scores are
    not of the kind that the network's description says.
    """
    results: list[torch.Tensor] = []
    for head, scores in zip(network.heads, reference_scores(network, images), strict=True):
        results += head.finish(scores)
    return tuple(results)


def reference_scores(network: ImageNetwork, images: torch.Tensor) -> list[torch.Tensor]:
    """The scores [N, K] of each head, by Pillow and PyTorch around the unchanged ONNX file.

    A file that computes in float16 is run in float32, with the same weights. Raises UserError as
    reference_outputs does.
    """
    images = torch.from_numpy(resized(images.numpy(), network.input_size))
    if network.channels == "grey":
        images = (images * torch.tensor(GREY)[:, None, None]).sum(1, keepdim=True)
    elif network.channels == "bgr":
        images = images.flip(1)
    mean, std = (torch.tensor(v)[:, None, None] for v in (network.mean, network.std))
    found = []
    for head, array in zip(network.heads, _run(network, (images - mean) / std), strict=True):
        # A file may leave its number of scores open.
        _check_count(head, _count(array.shape))
        rows = array.reshape(len(array), -1)
        if doubt := head.doubt(rows):
            raise UserError(f"{network.path} {doubt}.")
        found.append(torch.from_numpy(rows))
    return found


def _run(network: ImageNetwork, images: torch.Tensor) -> list[np.ndarray]:
    """What ONNX Runtime gives for prepared images, for each head."""
    import onnxruntime

    try:
        providers = ["CPUExecutionProvider"]
        core = model_file.load(network.path)
        wide = in_float32(core)
        file = str(network.path) if wide is core else wide.SerializeToString()
        options = onnxruntime.SessionOptions()
        options.add_session_config_entry(*FLOAT_ACTIVATIONS)
        session = onnxruntime.InferenceSession(file, options, providers=providers)
        entry = session.get_inputs()[0]
        if entry.shape[-1] == images.shape[1] and entry.shape[1] != images.shape[1]:
            images = images.permute(0, 2, 3, 1)
        given = images.contiguous().numpy()
        shapes = {o.name: o.shape for o in session.get_outputs()}
        names = [_scores_of(head, shapes) for head in network.heads]
        alone = entry.shape[0] == 1  # a file for one image at a time
        batches = np.split(given, len(given)) if alone else [given]
        found = [session.run(names, {entry.name: batch}) for batch in batches]
        return [np.concatenate(list(map(np.asarray, parts))) for parts in zip(*found, strict=True)]
    except UserError:
        raise
    except Exception as error:  # ONNX Runtime has an error class for each of its codes
        raise UserError(
            f"ONNX Runtime cannot run {network.path} on images ({first_line(error)}); export it "
            "with float32 or float16 inputs and the operators of ONNX alone."
        ) from error


def _fits(shape: Sequence[Any], wanted: Sequence[int]) -> bool:
    """Whether images [N, *wanted] have `shape`, in which names are free sizes."""
    return len(shape) == 4 and all(
        isinstance(found, str) or found == size
        for found, size in zip(shape[1:], wanted, strict=True)
    )


def _check_count(network: ImageNetwork, found: Any) -> None:
    ending = network.ending()
    if found != ending.count:
        raise UserError(
            f"{network.path} has {found} {ending.scores}, {ending.known_by} has {ending.count}; "
            f"{network.count_remedy(found) if isinstance(found, int) else 'give another file'}."
        )


def _count(shape: Sequence[Any]) -> Any:
    """K of scores [N, K] or [N, K, 1, 1], a number or a name; for other shapes, that of a row."""
    row = tuple(shape[1:])
    others = [length for length in row if length != 1]
    return others[0] if len(others) == 1 else row


def _scores_of(network: ImageNetwork, outputs: Mapping[str, Sequence[Any]]) -> str:
    """The name of the output that has the scores; `outputs` are shapes by name."""
    names = list(outputs)
    if network.output_name is not None:
        names = [network.output_name] if network.output_name in outputs else []
    elif len(names) > 1:
        count = network.ending().count
        counts = {name: _count(shape) for name, shape in outputs.items()}
        names = [name for name, found in counts.items() if found == count]
        names = names or [name for name, found in counts.items() if isinstance(found, str)]
    if len(names) == 1:
        return names[0]
    listed = ", ".join(f"{name} {list(shape)}" for name, shape in outputs.items())
    raise UserError(
        f"{network.path} has the outputs {listed}, and which one has the scores is not known; "
        f"{network.OUTPUT_NAME}."
    )


def _shape(value: onnx.ValueInfoProto) -> list[Any]:
    return [
        d.dim_value if d.HasField("dim_value") else d.dim_param or "?"
        for d in value.type.tensor_type.shape.dim
    ]


def _preparation(
    network: ImageNetwork, image_size: tuple[int | str, int | str], channels_last: bool
) -> GraphProto:
    """From "images" [B, 3, H, W] in [0, 1] to "prepared", which the network takes."""
    size = network.input_size
    nodes: list[NodeProto] = []
    constants: dict[str, np.ndarray] = {}
    last = "images"

    def step(op: str, *inputs: str, **attributes: Any) -> None:
        nonlocal last
        name = f"prepare_{len(nodes)}"
        nodes.append(helper.make_node(op, [last, *inputs], [name], name=name, **attributes))
        last = name

    if image_size != (size, size):
        nodes, sizes = resize("images", "resized", image_size, size)
        constants |= sizes
        last = "resized"
    if network.channels == "grey":
        constants["luma"] = np.array(GREY, "f4").reshape(1, 3, 1, 1)
        step("Conv", "luma")
    elif network.channels == "bgr":
        constants["reverse"] = np.array([2, 1, 0])
        step("Gather", "reverse", axis=1)
    constants["mean"] = np.array(network.mean, "f4").reshape(-1, 1, 1)
    constants["std"] = np.array(network.std, "f4").reshape(-1, 1, 1)
    step("Sub", "mean")
    step("Div", "std")
    if channels_last:
        step("Transpose", perm=[0, 2, 3, 1])
    nodes[-1].output[0] = PREPARED
    image = helper.make_tensor_value_info("images", TensorProto.FLOAT, ["B", 3, *image_size])
    return helper.make_graph(nodes, "preparation", [image], [], _tensors(constants))


def _tensors(constants: Mapping[str, np.ndarray]) -> list[TensorProto]:
    return [numpy_helper.from_array(value, name) for name, value in constants.items()]


def _prefix_names(model: onnx.ModelProto, prefix: str, entry: str) -> None:
    """Put `prefix` before the names of nodes and values, in place; `entry` becomes "prepared".

    Subgraphs use values from outside, so their names change too. (onnx.compose.add_prefix does not
    rename these.)
    """

    def new(name: str) -> str:
        return PREPARED if name == entry else name and f"{prefix}{name}"

    for graph in model_file.graphs(model.graph):
        sparse = [part for one in graph.sparse_initializer for part in (one.values, one.indices)]
        for named in (*graph.input, *graph.output, *graph.initializer, *sparse, *graph.node):
            named.name = new(named.name)
        for node in graph.node:
            for names in (node.input, node.output):
                names[:] = map(new, names)
        # The inner shapes are removed, because they have the old name of the batch.
        del graph.value_info[:], graph.quantization_annotation[:]


def _begin(graph: GraphProto, before: GraphProto) -> None:
    """Put `before` in front of a network, in place; nothing of it is an output any more."""
    network = list(graph.node)
    del graph.node[:], graph.input[:], graph.output[:]
    graph.input.extend(before.input)
    graph.node.extend([*before.node, *network])
    graph.initializer.extend(before.initializer)


def _end(graph: GraphProto, scores: str, suffix: str, ending: Ending) -> None:
    """Put `ending` behind the output `scores` [B, K, …] of a network, in place."""
    flat = f"{SCORES}{suffix}"
    graph.node.append(helper.make_node("Flatten", [scores], [flat], flat, axis=1))
    graph.node.extend(ending.nodes)
    graph.initializer.extend(_tensors(ending.constants))
    outputs = {ending.output: ["B", ending.size], **{name: ["B"] for name in ending.beside}}
    for name, shape in outputs.items():
        graph.output.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, shape))
