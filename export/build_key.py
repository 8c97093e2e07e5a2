"""When an engine must be built again: a hash of everything that it is made of.

The files of its weights, the settings that shape it, the code that exports it and the libraries
that this code calls. Two engines with one key are interchangeable.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

import onnx

from .checkpoint import Checkpoint
from .classifier import ClassifierSource

LIBRARIES = ("torch", "diffusers", "transformers", "onnx", "onnxscript", "onnxruntime")

_PARTS = ("unet", "vae", "text_encoder")
_SHAPES_NO_ENGINE = {
    *("build", "build_key", "build_log", "cli", "engines", "peak_memory", "staging", "verify"),
    *("mixed_precision", "plans", "quantize", "tensorrt"),
}
"""Code that comes before or after the export; the keys of int8 engines and of plans name theirs."""
_SAYS_ONLY = {"name", "version", "licence", "description", "label_scheme", "defaults"}


def engine_key(
    checkpoint: Checkpoint,
    hashes: Mapping[Path, str],
    name: str,
    precision: str,
    max_length: int,
    loras: Iterable[tuple[str, float]],
) -> str:
    """The key of an engine of graphs.ENGINES whose weights are stored as `precision`.

    `hashes` are those of the checkpoint's files (file_hashes), `loras` the merged ones with their
    scales, and `max_length` the tokens of a prompt.
    """
    folders = {part: checkpoint.directory / part for part in _PARTS}
    weights = {part: _within(folder, hashes) for part, folder in folders.items()}
    shape: dict[str, Any] = {}
    if name != "conditioner":
        shape = {"latent": checkpoint.latent_shape, "sizes": checkpoint.sizes}
    if name in ("decoder", "encoder"):
        return digest(name, precision, weights["vae"], shape, _tools())
    known = {source.path for source in checkpoint.classifiers}
    adapters = [
        sha
        for file, sha in hashes.items()
        if file.parent not in folders.values() and file not in known
    ]
    settings = {k: v for k, v in asdict(checkpoint.settings).items() if k not in _SAYS_ONLY}
    shape |= {"tokens": max_length, "settings": settings, "loras": sorted(loras)}
    used = [weights["text_encoder"] if name == "conditioner" else weights["unet"]]
    if name == "conditioner" and checkpoint.adapter is not None:
        used.append(weights["unet"])  # the adapter is folded through its output projections
    return digest(name, precision, used, sorted(adapters), shape, _tools())


def classifier_key(
    source: ClassifierSource, checkpoint: Checkpoint, precision: str, model: str
) -> str:
    """The key of a classifier; `model` is the hash of its file (file_hashes)."""
    fields = {**asdict(source), "path": model, "data": _external(source.path)}
    return digest(fields, checkpoint.image_size, checkpoint.sizes, precision, _tools())


def file_hashes(checkpoint: Checkpoint) -> dict[Path, str]:
    """SHA-256 of every weight file and of the configurations of the models."""
    configs = [checkpoint.directory / part / "config.json" for part in _PARTS]
    return {file: sha256(file) for file in (*checkpoint.weight_files, *configs)}


def source_hashes(checkpoint: Checkpoint, hashes: Mapping[Path, str]) -> dict[str, str]:
    """The weight files' hashes by path within the checkpoint, or by name outside it.

    A name that is taken gets its folder's in front.
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


def sha256(file: Path) -> str:
    """SHA-256 of a file, in hexadecimal."""
    whole = hashlib.sha256()
    with file.open("rb") as stream:
        while block := stream.read(1 << 20):
            whole.update(block)
    return whole.hexdigest()


def digest(*parts: Any) -> str:
    """SHA-256 of values that JSON can write (others by their str), in hexadecimal."""
    text = json.dumps(parts, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()


@cache
def code_hash(*names: str) -> str:
    """A hash of the source of the modules `names` of this package."""
    folder = Path(__file__).parent
    return digest(*(sha256(folder / f"{name}.py") for name in names))


@cache
def _tools() -> dict[str, str]:
    """Versions of the libraries, and a hash of the code of this package that shapes engines."""
    names = sorted({file.stem for file in Path(__file__).parent.glob("*.py")} - _SHAPES_NO_ENGINE)
    return {name: metadata.version(name) for name in LIBRARIES} | {"code": code_hash(*names)}


def _within(folder: Path, hashes: Mapping[Path, str]) -> list[tuple[str, str]]:
    return sorted((file.name, sha) for file, sha in hashes.items() if file.parent == folder)


def _external(path: Path) -> list[str]:
    """Hashes of the files beside an ONNX file that hold weights of it."""
    try:
        graph = onnx.load(path, load_external_data=False).graph
    except Exception:  # compose_classifier says what is wrong with it
        return []
    places = {
        entry.value
        for tensor in graph.initializer
        for entry in tensor.external_data
        if entry.key == "location"
    }
    files = [path.parent / place for place in sorted(places)]
    return [sha256(file) for file in files if file.is_file()]
