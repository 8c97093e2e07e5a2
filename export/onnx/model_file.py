"""ONNX files as users have them, with weights that may be in files beside them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import onnx
from onnx import TensorProto
from onnx.external_data_helper import ExternalDataInfo, load_external_data_for_model

from synfer_rt.bundle.files import file_roots

INLINE_BYTES = 100_000_000
"""Larger weights go to `<engine>.onnx.data`, which runtimes map into memory instead of reading it;
a protobuf file is limited to 2 GiB anyway."""


def load(path: Path) -> onnx.ModelProto:
    """The model with all its weights.

    onnx does not read weights from a file that is a link, as in the Hugging Face cache, or that has
    several names, as in a folder that was copied with hard links. Here it may be any file that
    `file_roots` allows. Raises ValueError for a file that is elsewhere or too short, OSError for
    one that cannot be read, and onnx's errors for a file that is not a model.
    """
    model = onnx.load(path, load_external_data=False)
    roots = file_roots(path.parent)
    for graph in graphs(model.graph):
        for tensor in graph.initializer:
            if tensor.data_location == TensorProto.EXTERNAL:
                _fill(tensor, path.parent, roots)
    load_external_data_for_model(model, str(path.parent))  # of attributes
    return model


def graphs(graph: onnx.GraphProto) -> Iterator[onnx.GraphProto]:
    """`graph` and all graphs within its nodes, such as the branches of an If."""
    yield graph
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.HasField("g"):
                yield from graphs(attribute.g)


def _fill(tensor: TensorProto, folder: Path, roots: tuple[Path, ...]) -> None:
    """Read the values of a tensor from the file that it names."""
    info = ExternalDataInfo(tensor)
    location = Path(info.location)
    file = folder / location
    inside = not location.is_absolute() and ".." not in location.parts
    if not inside or not any(map(file.resolve().is_relative_to, roots)):
        raise ValueError(f"its weights lie outside {folder}, in {info.location}")
    with file.open("rb") as stream:
        stream.seek(info.offset or 0)
        data = stream.read(-1 if info.length is None else info.length)
    if info.length is not None and len(data) != info.length:
        raise ValueError(f"{info.location} ends before the weight {tensor.name}")
    tensor.raw_data = data
    tensor.data_location = TensorProto.DEFAULT
    del tensor.external_data[:]
