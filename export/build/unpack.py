"""Write the checkpoint that a bundle was built from, out of the bundle alone."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import onnx_ir as ir
from safetensors.numpy import load_file, save_file

from synfer_rt.bundle import Bundle
from synfer_rt.bundle.files import inside
from synfer_rt.bundle.identity import (
    CARD,
    CHECKPOINT_INDEX,
    CHECKPOINT_TENSORS,
    GUIDE,
    GUIDE_WEIGHTS,
)
from synfer_rt.errors import UserError
from synfer_rt.export.checkpoint.contents import FERANNO_FOLDER, LAYOUTS_FILE
from synfer_rt.export.checkpoint.index import AU_READER, CheckpointIndex, network_file
from synfer_rt.export.checkpoint.kinds import PARTS
from synfer_rt.export.checkpoint.reading import read_checkpoint
from synfer_rt.export.files.json_files import read_json
from synfer_rt.export.graphs.trained_feranno import model_fingerprint
from synfer_rt.export.networks.au_reader import AUReaderSource
from synfer_rt.export.networks.classifier import ClassifierSource
from synfer_rt.export.networks.unpacked_network import unpacked_network
from synfer_rt.export.onnx.forward_graph import save
from synfer_rt.export.onnx.shared_weights import tensor_array
from synfer_rt.paths import local

_TOKENIZER, _TOKENIZER_CONFIG = "tokenizer/tokenizer.json", "tokenizer/tokenizer_config.json"
_TEXT_ENCODER, _PREFIX = "text_encoder/model.safetensors", "text_model."
_FAST = {"CLIPTokenizer": "CLIPTokenizerFast", "TokenizersBackend": "PreTrainedTokenizerFast"}
"""Classes that read tokenizer.json in transformers 5 alone, and those that do so in 4, too."""


def unpack(bundle: Bundle, out: Path) -> None:
    """Write `bundle` as the diffusers directory `out`, with SynFER's additions (contents.py).

    Every tensor is the one that the engines compute with: float16 where the bundle stores float16,
    as float32 in a file that also holds tensors which float16 would round. `out` appears whole or
    not at all. Raises UserError if it is not new or empty, and for a bundle that does not say
    where its checkpoint's tensors are: one of int8, or of a release that did not write it.
    """
    out = local(out)
    if out.exists() and not (out.is_dir() and not any(out.iterdir())):
        raise UserError(f"{out} exists and is not an empty directory; give another `out`.")
    index = _read_index(bundle)
    out.parent.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(prefix=f".{out.name}.", dir=out.parent) as work:
        place = Path(work) / "checkpoint"
        place.mkdir()
        for name, content in index.files.items():
            _write_json(_new(place, name), _as_unpacked(name, content))
        _copy_files(bundle, place)
        _write_tensors(bundle, index, place)
        _write_networks(bundle, index, place)
        _write_fingerprint(place)
        if out.exists():
            out.rmdir()
        place.rename(out)


def _read_index(bundle: Bundle) -> CheckpointIndex:
    if CHECKPOINT_INDEX not in bundle.manifest["files"]:
        raise UserError(
            f"The bundle {bundle.path} cannot be unpacked: it has no {CHECKPOINT_INDEX}, which "
            "`synfer-rt build-engines` writes into bundles of fp32 and fp16; build one."
        )
    file = bundle.path / CHECKPOINT_INDEX
    try:
        return CheckpointIndex(**read_json(file, "build the bundle again"))
    except TypeError as error:
        raise UserError(f"{file} cannot be read ({error}); build the bundle again.") from None


def _new(place: Path, name: str) -> Path:
    """The path of the file `name` within `place`, its folder made; UserError if it is outside."""
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts:
        raise UserError(f"{CHECKPOINT_INDEX} names {name!r}, outside it; do not use this bundle.")
    file = place.joinpath(*path.parts)
    file.parent.mkdir(parents=True, exist_ok=True)
    return file


def _write_json(file: Path, content: Mapping[str, Any]) -> None:
    file.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", "utf-8")


def _as_unpacked(name: str, content: Mapping[str, Any]) -> Mapping[str, Any]:
    """A JSON file of the checkpoint, of which the tokenizer is tokenizer.json alone.

    The index has no part that a bundle does not hold, such as a safety checker: pipelines would
    look for its folder.
    """
    changed = dict(content)
    if name == "model_index.json":
        for part, value in content.items():
            if isinstance(value, list) and part not in PARTS:
                changed[part] = [None, None]
        if "safety_checker" in content:
            changed["requires_safety_checker"] = False
        if "tokenizer" in content:
            library, kind = content["tokenizer"]
            changed["tokenizer"] = [library, _FAST.get(kind, kind)]
    elif name == _TOKENIZER_CONFIG and "tokenizer_class" in content:
        changed["tokenizer_class"] = _FAST.get(
            content["tokenizer_class"], content["tokenizer_class"]
        )
    return changed


def _copy_files(bundle: Bundle, place: Path) -> None:
    shutil.copyfile(bundle.path / bundle.manifest["tokenizer"]["file"], _new(place, _TOKENIZER))
    if bundle.manifest["layouts"] is not None:
        shutil.copyfile(bundle.path / bundle.manifest["layouts"]["file"], place / LAYOUTS_FILE)
    for name in (CARD, GUIDE, GUIDE_WEIGHTS):
        if name in bundle.manifest["files"]:
            shutil.copyfile(bundle.path / name, place / name)


def _write_tensors(bundle: Bundle, index: CheckpointIndex, place: Path) -> None:
    kept: dict[str, dict[str, np.ndarray]] = {}
    for key, array in load_file(bundle.path / CHECKPOINT_TENSORS).items():
        file, _, name = key.rpartition(".safetensors/")
        kept.setdefault(f"{file}.safetensors", {})[name] = array
    engines: dict[str, dict[str, Any]] = {}

    def initializer(where: str) -> np.ndarray:
        engine, _, name = where.partition("/")
        if engine not in engines:
            engines[engine] = _initializers(bundle, engine)
        return tensor_array(engines[engine][name])

    for file in sorted({*index.tensors, *index.transposed, *kept}):
        arrays = dict(kept.get(file, {}))
        try:
            for name, where in index.tensors.get(file, {}).items():
                arrays[name] = initializer(where)
            for name, where in index.transposed.get(file, {}).items():
                arrays[name] = np.ascontiguousarray(initializer(where).T)
        except KeyError as error:
            raise UserError(
                f"{bundle.path / CHECKPOINT_INDEX} names {error}, which no engine holds; build "
                "the bundle again."
            ) from None
        if file == _TEXT_ENCODER:
            arrays = _with_published_names(arrays)
        target = _new(place, file)
        save_file(_in_one_type(arrays), target, {"format": "pt"})
        target.chmod(0o644)  # safetensors' 0600 would hide it from those whom it is shared with


def _with_published_names(arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The tensors of a text encoder with the names that every release of transformers reads.

    transformers 5 leaves their prefix out; transformers 4 finds no tensor without it, and takes
    random ones.
    """
    return {f"{_PREFIX}{name.removeprefix(_PREFIX)}": array for name, array in arrays.items()}


def _initializers(bundle: Bundle, engine: str) -> dict[str, ir.TensorProtocol]:
    graph = ir.load(bundle.path / bundle.engines[engine].file).graph
    tensors = {name: value.const_value for name, value in graph.initializers.items()}
    for tensor in tensors.values():
        if isinstance(tensor, ir.ExternalTensor):
            inside(bundle.path, str(tensor.location))
    return {name: tensor for name, tensor in tensors.items() if tensor is not None}


def _in_one_type(arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """All floats as float16 if that rounds none of them, else as float32."""
    floats = [array for array in arrays.values() if array.dtype.kind == "f"]
    with np.errstate(over="ignore"):
        exact = all(np.array_equal(array.astype("f2").astype("f4"), array) for array in floats)
    kind = np.float16 if exact else np.float32
    return {
        name: array.astype(kind) if array.dtype.kind == "f" else array
        for name, array in arrays.items()
    }


def _write_networks(bundle: Bundle, index: CheckpointIndex, place: Path) -> None:
    kinds = dict.fromkeys(bundle.classifiers, ClassifierSource.KIND)
    if AU_READER in bundle.engines:
        kinds[AU_READER] = AUReaderSource.KIND
    for engine, kind in kinds.items():
        file = Path(network_file(engine))
        description = index.files[file.with_suffix(".json").as_posix()]
        source = bundle.path / bundle.engines[engine].file
        save(unpacked_network(source, kind, description), _new(place, str(file)))


def _write_fingerprint(place: Path) -> None:
    """Say of FERAnno that it fits this checkpoint, whose bytes may be those rounded to float16."""
    config = place / FERANNO_FOLDER / "config.json"
    if config.is_file():
        fields = read_json(config, "build the bundle again")
        fields["model"] = model_fingerprint(read_checkpoint(place))
        _write_json(config, fields)
