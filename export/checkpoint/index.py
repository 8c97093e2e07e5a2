"""What a bundle says of the checkpoint that it was built from, so that it can be unpacked again.

Engines hold the tensors of a checkpoint under names of their own, some transposed, and do not hold
its settings. Some files of the bundle say the rest; no sample depends on them:

    checkpoint.json           files       the checkpoint's JSON files by path
                              tensors     by file and name, "<engine>/<initializer>"
                              transposed  likewise; the initializer is the tensor transposed
    checkpoint.safetensors    "<file>/<name>": the tensors that no engine holds, such as the factors
                              of a product of which the export keeps the result alone
    image_classifier.onnx     the ONNX file that guides, if one does, of which an engine holds the
                              gradient alone

The tensors are those that were built, after LoRAs were merged. They are found by content: an
initializer is a tensor's if its type, shape and bytes are those of the tensor in float32 or
float16.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import torch
from safetensors.torch import save_file
from torch import Tensor

from synfer_rt.bundle.identity import CHECKPOINT_INDEX, CHECKPOINT_TENSORS, GUIDE
from synfer_rt.export.checkpoint.contents import (
    ADAPTER_FILES,
    AU_READER_FILE,
    Checkpoint,
)
from synfer_rt.export.checkpoint.distilled import DISTILLED_FOLDER
from synfer_rt.export.checkpoint.scheduler import CONFIG as SCHEDULER_CONFIG
from synfer_rt.export.checkpoint.settings import SETTINGS_FILE
from synfer_rt.export.files.au_adapter import AUAdapter
from synfer_rt.export.files.json_files import read_json
from synfer_rt.export.files.model_folder import weight_files
from synfer_rt.export.files.tensor_files import read_tensors, unwrapped
from synfer_rt.export.networks.au_reader import AUReaderSource
from synfer_rt.export.networks.classifier import ClassifierSource
from synfer_rt.export.networks.image_network import INPUT_FIELDS, ImageNetwork
from synfer_rt.export.onnx import model_file
from synfer_rt.export.onnx.forward_graph import save
from synfer_rt.export.onnx.shared_weights import data_files, tensor_array
from synfer_rt.vocabulary import facs, label_schemes

AU_READER = "au-reader"
_ADAPTER_FILE = ADAPTER_FILES[0]
_OWN_CONFIG = ("unet", "vae", "text_encoder")
_REBUILT = {"tokenizer.json", "vocab.json"}
"""Files of a tokenizer that the bundle's tokenizer.json takes the place of."""
_PATHS = ("_name_or_path", "name_or_path")
"""Fields in which diffusers and transformers note where a model was loaded from."""

_Key = tuple[str, tuple[int, ...], str]
"""Type, shape and SHA-256 of a tensor's bytes."""
_Place = tuple[str, str]
"""A tensor's file in the checkpoint, and its name there."""


@dataclass(frozen=True)
class CheckpointIndex:
    """checkpoint.json; see the module."""

    files: dict[str, dict[str, Any]]
    tensors: dict[str, dict[str, str]] = field(default_factory=dict)
    transposed: dict[str, dict[str, str]] = field(default_factory=dict)


def network_file(engine: str) -> str:
    """Where a checkpoint holds the ONNX file that became `engine`."""
    if engine == AU_READER:
        return AU_READER_FILE
    return f"classifiers/{engine.removeprefix('classifier.')}.onnx"


def write_index(checkpoint: Checkpoint, bundle: Path, engines: Mapping[str, str]) -> None:
    """Write the files into the directory `bundle`, whose `engines` are finished files by name."""
    index = CheckpointIndex(_json_files(checkpoint))
    wanted: dict[_Key, list[_Place]] = {}
    for file, tensors in _parts(checkpoint):
        for name, tensor in tensors.items():
            for array in _stored_as(tensor):
                wanted.setdefault(_key(array), []).append((file, name))
    found: set[_Place] = set()
    for engine, engine_file in engines.items():
        for name, array in _initializers(bundle / engine_file):
            views = [(array, index.tensors)]
            if array.ndim == 2:
                views.append((array.T, index.transposed))
            for view, places in views:
                for file, tensor in wanted.get(_key(view), ()):
                    if (file, tensor) not in found:
                        found.add((file, tensor))
                        places.setdefault(file, {})[tensor] = f"{engine}/{name}"
    kept = {
        f"{file}/{name}": _in_half_if_exact(tensor).contiguous()
        for file, tensors in _parts(checkpoint)
        for name, tensor in tensors.items()
        if (file, name) not in found
    }
    save_file(kept, bundle / CHECKPOINT_TENSORS, {"format": "pt"})
    # safetensors' 0600 would hide a shared bundle from its readers.
    (bundle / CHECKPOINT_TENSORS).chmod(0o644)
    text = json.dumps(asdict(index), indent=1, ensure_ascii=False)
    (bundle / CHECKPOINT_INDEX).write_text(text + "\n", "utf-8")
    if checkpoint.guide is not None:
        _keep(checkpoint.guide.path, bundle / GUIDE)


def _keep(source: Path, out: Path) -> None:
    """Copy an ONNX file byte for byte, or with its weights if they are in files beside it."""
    if data_files(source):
        save(ir.from_proto(model_file.load(source)), out)
    else:
        shutil.copyfile(source, out)


def _parts(checkpoint: Checkpoint) -> Iterator[tuple[str, Mapping[str, Tensor]]]:
    """Every file of tensors that the checkpoint has as it was built, with its tensors by name."""
    yield "unet/diffusion_pytorch_model.safetensors", checkpoint.unet.state_dict()
    yield "vae/diffusion_pytorch_model.safetensors", checkpoint.vae.state_dict()
    yield "text_encoder/model.safetensors", checkpoint.text_encoder.state_dict()
    if checkpoint.adapter is not None:
        yield _ADAPTER_FILE, adapter_tensors(checkpoint.adapter)
    for folder in checkpoint.additions:
        files = weight_files(checkpoint.folder(folder))
        file = "diffusion_pytorch_model" if folder == DISTILLED_FOLDER else "model"
        yield (
            f"{folder}/{file}.safetensors",
            {unwrapped(k): v for f in files for k, v in read_tensors(f, "weights").items()},
        )


def adapter_tensors(adapter: AUAdapter) -> dict[str, Tensor]:
    """An AU adapter in SynFER's format, whatever its own was; see files/au_adapter.py."""
    projection = adapter.projection
    names = ["proj.0", "proj.2"] if projection.two_layers else ["proj"]
    parts = dict(zip(names, list(projection.layers)[::2], strict=True))
    if projection.norm is not None:
        parts["norm"] = projection.norm
    tensors = {
        f"image_proj.{name}.{key}": tensor
        for name, part in parts.items()
        for key, tensor in part.state_dict().items()
    }
    for kind, weights in (("k", adapter.to_k), ("v", adapter.to_v)):
        for i, tensor in weights.items():
            tensors[f"ip_adapter.{i}.to_{kind}_ip.weight"] = tensor
    return tensors


def _json_files(checkpoint: Checkpoint) -> dict[str, dict[str, Any]]:
    directory = checkpoint.directory
    files = {"model_index.json": directory / "model_index.json"}
    files |= {f"{part}/config.json": directory / part / "config.json" for part in _OWN_CONFIG}
    for folder in ("scheduler", "tokenizer", *checkpoint.additions):
        found = sorted(checkpoint.folder(folder).glob("*.json"))
        files |= {f"{folder}/{file.name}": file for file in found}
    contents = {
        path: {
            name: value
            for name, value in read_json(file, "mend its permissions").items()
            if name not in _PATHS
        }
        for path, file in files.items()
        if file.name not in _REBUILT and not file.name.endswith(".index.json")
    }
    changes = checkpoint.scheduler_changes
    contents[f"scheduler/{SCHEDULER_CONFIG}"] |= changes
    if "_class_name" in changes:
        contents["model_index.json"]["scheduler"] = ["diffusers", changes["_class_name"]]
    height, width = checkpoint.unet.config.sample_size
    contents["unet/config.json"]["sample_size"] = height if height == width else [height, width]
    contents[SETTINGS_FILE] = checkpoint_settings(checkpoint)
    for engine, network in checkpoint.networks.items():
        contents[str(Path(network_file(engine)).with_suffix(".json"))] = _description(network)
    if (guide := checkpoint.guide) is not None:
        chosen = {} if guide.output_name is None else {"output_name": guide.output_name}
        contents[str(Path(GUIDE).with_suffix(".json"))] = _description(guide) | chosen
    return contents


def checkpoint_settings(checkpoint: Checkpoint) -> dict[str, Any]:
    """synfer.json that says what the bundle was built with, also what was found elsewhere."""
    file = checkpoint.directory / SETTINGS_FILE
    settings = read_json(file, "mend its permissions") if file.is_file() else {}
    stated = asdict(checkpoint.settings)
    if checkpoint.adapter is None:
        del stated["au_maximum"]
    settings.pop("distilled", None)  # of a student that is left out
    return settings | {name: value for name, value in stated.items() if value not in (None, "", ())}


def _description(network: ImageNetwork) -> dict[str, Any]:
    """The JSON file beside an unpacked network, which has one output."""
    fields = {name: getattr(network, name) for name in INPUT_FIELDS if name != "output_name"}
    if isinstance(network, ClassifierSource):
        if network.others:
            named = [{**_head(one), "output_name": one.output_name} for one in network.heads]
            return {**fields, "heads": named}
        return {**fields, **_head(network)}
    assert isinstance(network, AUReaderSource)
    known = [key for key, names in facs.VOCABULARIES.items() if names == network.units]
    return {"au_vocabulary": known[0] if known else network.units, **fields}


def _head(classifier: ClassifierSource) -> dict[str, Any]:
    scheme: Any = classifier.label_scheme
    if classifier.mappings:
        classes = list(label_schemes.scheme(scheme))
        scheme = {"classes": classes, "mappings": classifier.mappings}
    return {"label_scheme": scheme, "output": classifier.output}


def _initializers(engine: Path) -> Iterator[tuple[str, np.ndarray]]:
    for name, value in ir.load(engine).graph.initializers.items():
        tensor = value.const_value
        if tensor is not None and tensor.dtype in (ir.DataType.FLOAT, ir.DataType.FLOAT16):
            yield name, tensor_array(tensor)


def _stored_as(tensor: Tensor) -> list[np.ndarray]:
    """What an engine may hold of a tensor; nothing of counts, which only training reads."""
    return [tensor.float().numpy(), tensor.half().numpy()] if tensor.is_floating_point() else []


def _key(array: np.ndarray) -> _Key:
    content = hashlib.sha256(np.ascontiguousarray(array).data).hexdigest()
    return array.dtype.str, array.shape, content


def _in_half_if_exact(tensor: Tensor) -> Tensor:
    half = tensor.half()
    return half if tensor.is_floating_point() and torch.equal(half.float(), tensor) else tensor
