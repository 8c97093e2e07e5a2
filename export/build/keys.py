"""Build keys: an engine is built again when the hash of everything that it is made of changes.

That is the files of its weights, the settings that shape it, the code that exports it and the
libraries that this code calls. Two engines with the same key are interchangeable.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

from synfer_rt.bundle import FERANNO
from synfer_rt.bundle.engine_specs import (
    CACHING,
    CONDITIONAL,
    DENOISER,
    DISTILLED,
    REUSING,
    STORING,
)
from synfer_rt.export.build.hashes import EXPORT, code_hash, digest, sha256
from synfer_rt.export.checkpoint.contents import ADDITIONS, FERANNO_FOLDER, Checkpoint
from synfer_rt.export.checkpoint.distilled import DISTILLED_FOLDER
from synfer_rt.export.networks.classifier import ClassifierSource
from synfer_rt.export.networks.guiding_classifier import IMAGE_FOLDER, LATENT_FOLDER
from synfer_rt.export.networks.image_network import ImageNetwork
from synfer_rt.export.onnx.shared_weights import data_files
from synfer_rt.vocabulary import label_schemes

LIBRARIES = ("torch", "diffusers", "transformers", "onnx", "onnxscript", "onnxruntime")

_PARTS = ("unet", "vae", "text_encoder")
_MADE_OF = {
    "conditioner": ("text_encoder",),
    DENOISER: ("unet",),
    CONDITIONAL: ("unet",),
    STORING: ("unet",),
    REUSING: ("unet",),
    DISTILLED: ("unet", DISTILLED_FOLDER),
    "decoder": ("vae",),
    "encoder": ("vae",),
    FERANNO: ("unet", "text_encoder", "tokenizer", FERANNO_FOLDER),
    "guide.text": ("unet", "vae", IMAGE_FOLDER),
    "guide.text-latent": ("unet", LATENT_FOLDER),
    "guide.latent": (LATENT_FOLDER,),
}
"""The checkpoint's folders that the weights of each engine come from."""
_SHAPES_NO_ENGINE = {
    *("cli.py", "peak_memory.py", "sentences.py", "onnx/quantize.py", "onnx/shared_weights.py"),
    *(f"build/{name}.py" for name in ("all_engines", "at_once", "cuda_engines", "entries")),
    *(f"build/{name}.py" for name in ("finished_bundle", "hashes", "keys", "log", "plans")),
    *(f"build/{name}.py" for name in ("staging", "unpack", "verify", "whole_bundle")),
    *("checkpoint/few_step.py", "checkpoint/index.py", "networks/unpacked_network.py"),
}
"""Code that runs before or after the export; the keys of int8 engines, plans and CUDA engines hash
their own."""
_AFTER_THE_EXPORT = ("cuda", "onnx_pipeline", "tensorrt")
"""Folders of such code."""
_SAYS_ONLY = {
    *("name", "version", "licence", "description", "annotators_know", "label_scheme", "defaults"),
    *("distilled", "face_template"),
}


def engine_key(
    checkpoint: Checkpoint,
    hashes: Mapping[Path, str],
    name: str,
    precision: str,
    max_length: int,
    loras: Iterable[tuple[str, float]],
) -> str:
    """The key of an engine of graphs.engine_names whose weights are stored as `precision`.

    `hashes` are those of the checkpoint's files (file_hashes), `loras` the hashes of the merged
    LoRAs with their scales, and `max_length` the number of tokens of a prompt.
    """
    guide = checkpoint.guide
    given = name == "guide.text" and guide is not None
    parts = [part for part in _MADE_OF[name] if not (given and part == IMAGE_FOLDER)]
    made_of = [_within(checkpoint.folder(part), hashes) for part in parts]
    shape: dict[str, Any] = {}
    if name != "conditioner":
        shape = {"latent": checkpoint.latent_shape, "sizes": checkpoint.sizes}
    if name.startswith("guide."):
        shape["classes"] = label_schemes.scheme(checkpoint.settings.label_scheme)
    if given and guide is not None:
        shape["guide"] = _described(guide, hashes[guide.path])
    if name in CACHING:
        shape["cache_depth"] = checkpoint.cache_depth
    if name == FERANNO:
        shape["schedule"] = checkpoint.schedule
    if not {"unet", "text_encoder"} & {*_MADE_OF[name]}:
        return digest(name, precision, made_of, shape, _tools())
    if name == "conditioner" and checkpoint.adapter is not None:
        # The adapter is folded through the UNet's output projections.
        made_of.append(_within(checkpoint.folder("unet"), hashes))
    adapters = sorted(hashes[file] for file in _adapters(checkpoint))
    settings = {k: v for k, v in asdict(checkpoint.settings).items() if k not in _SAYS_ONLY}
    shape |= {"tokens": max_length, "settings": settings, "loras": sorted(loras)}
    return digest(name, precision, made_of, adapters, shape, _tools())


def network_key(source: ImageNetwork, checkpoint: Checkpoint, precision: str, model: str) -> str:
    """The key of an engine from an ONNX file; `model` is the file's hash (file_hashes)."""
    target = checkpoint.settings.label_scheme if isinstance(source, ClassifierSource) else None
    shape = checkpoint.image_size, checkpoint.sizes
    return digest(_described(source, model), *shape, target, precision, _tools())


def _described(source: ImageNetwork, model: str) -> dict[str, Any]:
    """An ONNX file by its description and hashes; `model` is that of the file."""
    heads = [{**asdict(head), "path": model} for head in source.heads]
    return {"heads": heads, "data": _external(source.path)}


def file_hashes(checkpoint: Checkpoint) -> dict[Path, str]:
    """SHA-256 of every weight file, and of the settings in the folders that engines come from."""
    folders = {part for parts in _MADE_OF.values() for part in parts}
    folders -= {*ADDITIONS} - {*checkpoint.additions}
    files = {
        file
        for folder in folders
        for file in checkpoint.folder(folder).iterdir()
        if file.suffix in (".json", ".txt", ".model")
    }
    return {file: sha256(file) for file in (*checkpoint.weight_files, *sorted(files))}


def source_hashes(checkpoint: Checkpoint, hashes: Mapping[Path, str]) -> dict[str, str]:
    """The hashes of the weight files, by path within the checkpoint, or by name outside it.

    Names that are the same get their folder's name in front.
    """
    named: dict[str, str] = {}
    for file in checkpoint.weight_files:
        inside = file.is_relative_to(checkpoint.directory)
        name = file.relative_to(checkpoint.directory).as_posix() if inside else file.name
        folder = file.absolute().parent
        while name in named and named[name] != hashes[file]:
            name, folder = f"{folder.name}/{name}", folder.parent
        named[name] = hashes[file]
    return named


@cache
def _tools() -> dict[str, str]:
    """Versions of the libraries, and a hash of the code of this package that shapes engines."""
    files = {file.relative_to(EXPORT) for file in EXPORT.rglob("*.py")}
    names = {file.as_posix() for file in files if file.parts[0] not in _AFTER_THE_EXPORT}
    code = code_hash(*sorted(names - _SHAPES_NO_ENGINE))
    return {name: metadata.version(name) for name in LIBRARIES} | {"code": code}


def _adapters(checkpoint: Checkpoint) -> list[Path]:
    """The weight files of the AU adapter and of LoRAs."""
    networks = {source.path for source in checkpoint.classifiers}
    if checkpoint.au_reader is not None:
        networks.add(checkpoint.au_reader.path)
    if checkpoint.guide is not None:
        networks.add(checkpoint.guide.path)
    folders = {checkpoint.folder(part) for part in (*_PARTS, *ADDITIONS)}
    return [
        file
        for file in checkpoint.weight_files
        if file.parent not in folders and file not in networks
    ]


def _within(folder: Path, hashes: Mapping[Path, str]) -> list[tuple[str, str]]:
    return sorted((file.name, sha) for file, sha in hashes.items() if file.parent == folder)


def _external(path: Path) -> list[str]:
    """Hashes of the files beside an ONNX file that hold its weights."""
    try:
        files = [path.parent / name for name in sorted(data_files(path))]
    except Exception:  # compose_network will say what is wrong with the file
        return []
    return [sha256(file) for file in files if file.is_file()]
