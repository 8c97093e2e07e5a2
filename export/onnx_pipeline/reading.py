"""A pipeline in ONNX -> the checkpoint whose networks its graphs compute.

Each network is made from its config.json, its weights are taken out of the graph (weights.py), and
then the graph's outputs are compared with the network's. So nothing is guessed: a graph whose
weights are not all found, or that computes something else, is refused.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import diffusers
import numpy as np
import torch
import transformers
from safetensors.torch import save_file

from synfer_rt.errors import UserError
from synfer_rt.export.checkpoint.contents import Checkpoint
from synfer_rt.export.checkpoint.reading import read_checkpoint
from synfer_rt.export.files.json_files import read_json
from synfer_rt.export.files.model_folder import quiet
from synfer_rt.export.onnx.model_file import load
from synfer_rt.export.onnx_pipeline.comparison import check_graph
from synfer_rt.export.onnx_pipeline.layout import (
    ADAPTERS,
    BESIDE,
    CONFIG,
    GRAPH,
    GRAPHS,
    PART_OF,
    is_onnx_pipeline,
)
from synfer_rt.export.onnx_pipeline.networks import graphs_of
from synfer_rt.export.onnx_pipeline.weights import parameters_of
from synfer_rt.export.sentences import first_line, some

_INDEX = "model_index.json"
_NEEDS = "give a text-to-image Stable Diffusion 1.x or 2.x pipeline"
_CLASSES: dict[str, tuple[str, str]] = {
    "unet": ("diffusers", "UNet2DConditionModel"),
    "vae": ("diffusers", "AutoencoderKL"),
    "text_encoder": ("transformers", "CLIPTextModel"),
}
_WEIGHTS = {
    "unet": "diffusion_pytorch_model.safetensors",
    "vae": "diffusion_pytorch_model.safetensors",
    "text_encoder": "model.safetensors",
}
_OF_OTHERS = ("transformer", "text_encoder_2", "text_encoder_3", "controlnet", "prior")
"""Folders of other kinds of pipelines."""


@contextmanager
def as_checkpoint(directory: Path) -> Generator[Path]:
    """`directory`, or within the block the checkpoint of the pipeline in ONNX that it holds.

    Errors of the block name the pipeline. Raises UserError as `write_checkpoint` does.
    """
    if not is_onnx_pipeline(directory):
        yield directory
        return
    with TemporaryDirectory(prefix="synfer-rt-") as folder:
        place = Path(folder).resolve() / directory.resolve().name
        try:
            write_checkpoint(directory, place)
            yield place
        except UserError as error:
            raise UserError(str(error).replace(str(place), str(directory))) from error


def write_checkpoint(directory: Path, out: Path) -> None:
    """Write the pipeline in ONNX in `directory` as the checkpoint `out`, a new folder.

    Raises UserError for another kind of pipeline, a graph whose weights are not found by name, and
    one that computes something else than the network of its config.json with these weights.
    """
    index = _checked_index(directory)
    out.mkdir()
    for part in dict.fromkeys(PART_OF.values()):
        _check_class(directory, part, index)
        _write_part(directory, part, out / part)
    for name in ("scheduler", "tokenizer", *BESIDE, *ADAPTERS):
        if (directory / name).is_dir():
            shutil.copytree(directory / name, out / name)
        elif (directory / name).is_file():
            shutil.copyfile(directory / name, out / name)
    kept = {name: index[name] for name in ("scheduler", "tokenizer") if name in index}
    classes = {part: list(names) for part, names in _CLASSES.items()}
    name = str(index.get("_class_name", "")).removeprefix("ORT").removeprefix("Onnx")
    content = {"_class_name": name or "StableDiffusionPipeline", **kept, **classes}
    (out / _INDEX).write_text(json.dumps(content, indent=2) + "\n")
    _compare(directory, read_checkpoint(out))


def _checked_index(directory: Path) -> dict[str, Any]:
    index = read_json(directory / _INDEX, "a pipeline in ONNX has one")
    name = str(index.get("_class_name", "an unknown pipeline"))
    others = [part for part in _OF_OTHERS if index.get(part) or (directory / part).is_dir()]
    if others:
        raise UserError(f"{directory} is a {name} with a {others[0]}; {_NEEDS}.")
    for graph in GRAPHS:
        folder = directory / graph
        if not (folder / GRAPH).is_file():
            raise UserError(
                f"{directory} has no {graph}/{GRAPH}; export the pipeline anew with "
                "`optimum-cli export onnx`."
            )
        if not (folder / CONFIG).is_file():
            raise UserError(
                f"{folder} has no {CONFIG}, which says what its network is; copy it from the "
                "diffusers model, or export the pipeline anew with `optimum-cli export onnx`."
            )
    return index


def _check_class(directory: Path, part: str, index: Mapping[str, Any]) -> None:
    """Raise UserError for a network of another class; optimum may name its own class instead."""
    _, name = _CLASSES[part]
    place = directory / next(graph for graph in reversed(GRAPHS) if PART_OF[graph] == part)
    config, entry = read_json(place / CONFIG, "fetch it again"), index.get(part)
    named = [config.get("_class_name"), *(config.get("architectures") or ())]
    named += entry[1:] if isinstance(entry, list) else []
    for one in named:
        if one and one != name and not str(one).startswith(("ORT", "Onnx")):
            raise UserError(f"{place} holds a {one}, not a {name}; {_NEEDS}.")


def _write_part(directory: Path, part: str, out: Path) -> None:
    """Write the network that is a checkpoint's `part`, of one or two graphs."""
    graphs = [graph for graph in GRAPHS if PART_OF[graph] == part]
    place = directory / graphs[-1]
    config = read_json(place / CONFIG, "fetch it again")
    network = _empty(part, config, place)
    found: dict[str, np.ndarray] = {}
    for graph in graphs:
        path = directory / graph / GRAPH
        try:
            model = load(path)
        except Exception as error:  # protobuf, onnx and the file system raise their own
            raise UserError(
                f"{path} is not a whole ONNX file ({first_line(error)}); export or fetch it again."
            ) from error
        found |= parameters_of(model, network)
        del model
    wanted = [name for name, _ in network.named_parameters()]
    if missing := [name for name in wanted if name not in found]:
        raise UserError(
            f"{directory / graphs[0] / GRAPH} has no weights by the names of {len(missing)} of its "
            f"network's {len(wanted)} parameters, such as {some(missing, 2)}; export the pipeline "
            "without graph optimisation, or build from the diffusers model."
        )
    out.mkdir()
    library, name = _CLASSES[part]
    kept = {key: value for key, value in config.items() if key != "_class_name"}
    kept |= {"_class_name": name} if library == "diffusers" else {}
    (out / CONFIG).write_text(json.dumps(kept, indent=2) + "\n")
    tensors = {name: torch.from_numpy(np.array(found[name], order="C")) for name in wanted}
    save_file(tensors, out / _WEIGHTS[part], {"format": "pt"})


def _empty(part: str, config: dict[str, Any], place: Path) -> Any:
    """The network of a config.json without values. Raises UserError if it makes none."""
    library, name = _CLASSES[part]
    try:
        with quiet(), torch.device("meta"):
            if library == "diffusers":
                return getattr(diffusers, name).from_config(config)
            return transformers.CLIPTextModel(transformers.CLIPTextConfig.from_dict(config))
    except Exception as error:  # each class raises errors of its own
        raise UserError(
            f"{place / CONFIG} makes no {name} ({first_line(error)}); export or fetch it again."
        ) from error


def _compare(directory: Path, checkpoint: Checkpoint) -> None:
    for name, graph in graphs_of(checkpoint).items():
        check_graph(directory / name / GRAPH, graph)
