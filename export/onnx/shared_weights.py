"""Engines with the same weights keep them in one file.

The model's other denoisers, FERAnno and two of the guides contain the denoiser's UNet, and one of
these the decoder too. The weights of an ONNX model may be in any file beside it, so
`denoiser.onnx.data` can serve them all, and a bundle has the UNet once. Large weights are copied
one at a time, so that they are never in memory together.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir

from synfer_rt.export.onnx.model_file import INLINE_BYTES

_LEAST_BYTES = 1024
"""Smaller tensors are not shared."""
_ALIGNMENT = 4096
"""The alignment of a tensor in the file, in bytes, so that runtimes can map it."""

_Key = tuple[int, str]
"""Type and SHA-256 of a tensor's bytes."""


@dataclass(frozen=True)
class _Place:
    file: Path
    offset: int
    length: int


@dataclass(frozen=True)
class _Model:
    """A model on disk, and its large weights by content."""

    path: Path
    model: ir.Model
    values: Mapping[_Key, Sequence[Any]]

    @property
    def data(self) -> Path:
        """The file of its own weights."""
        return self.path.with_name(f"{self.path.name}.data")


def share_weights(paths: Sequence[Path]) -> int:
    """Keep the weights of several models once, in `<path>.data` of the first model that has them.

    All models are in one directory; their files are replaced, not changed. A model that shares
    nothing stays as it is. Returns the bytes saved. Tensors are the same if their types and bytes
    are; their shapes may differ.
    """
    models = [_load(path) for path in paths]
    owners: dict[_Key, _Model] = {}
    lent: set[_Key] = set()
    for model in models:
        lent |= model.values.keys() & owners.keys()
        owners = {**dict.fromkeys(model.values, model), **owners}
    models = [model for model in models if model.values.keys() & lent]
    places: dict[_Key, _Place] = {}
    for model in models:
        own = [key for key in model.values if owners[key] is model]
        places |= _keep(model, own, lent, model.data)
    for model in models:
        _save(model, places, model.path)
    return sum(
        places[key].length
        for model in models
        for key in model.values.keys() & lent
        if owners[key] is not model
    )


def copy_with_weights(source: Path, target: Path) -> None:
    """Write the model `source` to `target` with all its weights inside, or in `<target>.data`."""
    model = _load(source)
    data = target.with_name(f"{target.name}.data")
    _save(model, _keep(model, list(model.values), set(), data), target)


def data_files(path: Path) -> set[str]:
    """Names of the files beside the model `path` that have its weights."""
    graph = onnx.load(path, load_external_data=False).graph
    entries = (entry for tensor in graph.initializer for entry in tensor.external_data)
    return {entry.value for entry in entries if entry.key == "location"}


def _load(path: Path) -> _Model:
    model = ir.load(path)
    values: dict[_Key, list[ir.Value]] = {}
    for value in model.graph.initializers.values():
        tensor = value.const_value
        if tensor is None:
            continue
        if tensor.nbytes >= _LEAST_BYTES or isinstance(tensor, ir.ExternalTensor):
            key = int(tensor.dtype), hashlib.sha256(_content(tensor)).hexdigest()
            values.setdefault(key, []).append(value)
    return _Model(path, model, values)


def tensor_array(tensor: ir.TensorProtocol) -> np.ndarray:
    """A tensor's values, read from the file that they lie in if they are not in memory."""
    if not isinstance(tensor, ir.ExternalTensor):
        return tensor.numpy()
    return np.frombuffer(_content(tensor), tensor.dtype.numpy()).reshape(tensor.shape.numpy())


def _content(tensor: ir.TensorProtocol) -> bytes:
    if not isinstance(tensor, ir.ExternalTensor):
        return tensor.tobytes()
    # onnx_ir would refuse a file with several names, and a bundle that is being built has hard
    # links to the bundle that it updates.
    with open(tensor.path, "rb") as file:
        file.seek(tensor.offset or 0)
        return file.read(tensor.length or tensor.nbytes)


def _keep(model: _Model, keys: Sequence[_Key], lent: Set[_Key], data: Path) -> dict[_Key, _Place]:
    """Write the `lent` weights of a model to `data`, from which they may come.

    If the weights of all `keys` together are large, all are written; else the others are loaded
    into memory. If none is written, `data` is removed.
    """
    values = [value for key in keys for value in model.values[key]]
    large = sum(value.const_value.nbytes for value in values) > INLINE_BYTES
    written = [key for key in keys if large or key in lent]
    for value in (value for key in keys if key not in written for value in model.values[key]):
        tensor = value.const_value
        if isinstance(tensor, ir.ExternalTensor):
            value.const_value = ir.Tensor(tensor_array(tensor), name=tensor.name)
    if not written:
        data.unlink(missing_ok=True)
        return {}
    places = {}
    part = data.with_name(f".{data.name}.part")
    with part.open("wb") as stream:
        for key in written:
            stream.write(bytes(-stream.tell() % _ALIGNMENT))
            content = _content(model.values[key][0].const_value)
            places[key] = _Place(data, stream.tell(), len(content))
            stream.write(content)
    part.replace(data)
    return places


def _save(model: _Model, places: Mapping[_Key, _Place], target: Path) -> None:
    """Write the model to `target`: weights at `places` by reference, all others inside."""
    for key, values in model.values.items():
        for value in values:
            if key in places:
                tensor, place = value.const_value, places[key]
                value.const_value = ir.ExternalTensor(
                    place.file.name,
                    place.offset,
                    place.length,
                    tensor.dtype,
                    shape=ir.Shape(tensor.shape.numpy()),
                    name=tensor.name or "",
                    base_dir=target.parent,
                )
    part = target.with_name(f".{target.name}.part")
    ir.save(model.model, part)
    part.replace(target)
