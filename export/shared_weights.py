"""Engines that hold the same weights keep them in one file.

The guides contain the UNet that the denoiser is made of. ONNX lets a model's weights lie in any
file beside it, so `denoiser.onnx.data` may serve them all, and a bundle carries the UNet once.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

import onnx
from onnx.external_data_helper import load_external_data_for_model, set_external_data

_LEAST_BYTES = 1024
"""Smaller tensors stay where they are."""
_ALIGNMENT = 4096
"""Of a tensor in the file, so that runtimes can map it."""


def share_weights(owner: Path, others: Sequence[Path]) -> int:
    """Move to `<owner>.data` what `owner` and any of `others` both hold, in all of these models.

    All lie in one directory. Models that share nothing are left as they are. Returns the bytes
    saved. A tensor is the same when its type and its bytes are; its shape may differ.
    """
    models = {path: _load(path) for path in (owner, *others)}
    held = {path: set(_tensors(model)) for path, model in models.items()}
    wanted = set.union(set(), *(held[path] for path in others)) & held[owner]
    if not wanted:
        return 0
    data, places = owner.with_name(f"{owner.name}.data"), {}
    part = data.with_name(f".{data.name}.part")
    with part.open("wb") as file:
        for key, tensor in _tensors(models[owner]).items():
            if key in wanted:
                file.write(bytes(-file.tell() % _ALIGNMENT))
                places[key] = file.tell(), len(tensor.raw_data)
                file.write(tensor.raw_data)
    part.replace(data)
    saved = 0
    for path, model in models.items():
        for tensor in model.graph.initializer:
            key = _key(tensor)
            if key in places:
                offset, length = places[key]
                set_external_data(tensor, data.name, offset, length)
                tensor.ClearField("raw_data")
                saved += length if path != owner else 0
        part = path.with_name(f".{path.name}.part")
        part.write_bytes(model.SerializeToString())
        part.replace(path)
    return saved


def _load(path: Path) -> onnx.ModelProto:
    model = onnx.load(path, load_external_data=False)
    load_external_data_for_model(model, str(path.parent))
    return model


def _tensors(model: onnx.ModelProto) -> dict[tuple[int, str], onnx.TensorProto]:
    """The large weights of a model by type and content."""
    keyed = {_key(tensor): tensor for tensor in model.graph.initializer}
    return {key: tensor for key, tensor in keyed.items() if key is not None}


def _key(tensor: onnx.TensorProto) -> tuple[int, str] | None:
    if len(tensor.raw_data) < _LEAST_BYTES:
        return None
    return tensor.data_type, hashlib.sha256(tensor.raw_data).hexdigest()
