"""Checkpoint -> a pipeline in ONNX, which optimum's pipelines read (layout.py)."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import torch
from safetensors.torch import save_file
from torch import nn
from torch.export import Dim

from synfer_rt.bundle import MANIFEST, open_bundle
from synfer_rt.errors import UserError
from synfer_rt.export.build.log import to_stderr
from synfer_rt.export.build.unpack import unpack
from synfer_rt.export.build.verify import TOLERANCES, max_relative_error, references
from synfer_rt.export.checkpoint.contents import ADAPTER_FILES, Checkpoint
from synfer_rt.export.checkpoint.index import adapter_tensors, checkpoint_settings
from synfer_rt.export.checkpoint.reading import read_checkpoint
from synfer_rt.export.checkpoint.settings import SETTINGS_FILE
from synfer_rt.export.files.json_files import read_json
from synfer_rt.export.onnx.forward_graph import (
    MAX_BATCH,
    clear_metadata,
    save,
    store_half,
    to_onnx,
)
from synfer_rt.export.onnx.shared_weights import tensor_array
from synfer_rt.export.onnx_pipeline.layout import BESIDE, CONFIG, GRAPH, PART_OF
from synfer_rt.export.onnx_pipeline.networks import PipelineGraph, graphs_of
from synfer_rt.export.onnx_pipeline.weights import PARAMETERS, TRANSPOSED
from synfer_rt.paths import local

_BATCH = "batch_size"
_COPIED = ("scheduler", "tokenizer")
_INDEX = "model_index.json"


def write_onnx_pipeline(
    checkpoint: Path,
    out: Path,
    precision: str = "fp32",
    remark: Callable[[str], None] = to_stderr,
) -> None:
    """Write `checkpoint`, a directory or a bundle that can be unpacked, as a pipeline in ONNX.

    Its UNet has AUs at zero (networks.py). `precision` is how weights are stored, "fp32" or "fp16";
    graphs compute in float32. What no pipeline reads, such as the AU adapter, lies beside them, so
    that `build-engines` makes the bundle of it that it makes of the checkpoint. `remark` is called
    with each sentence on what pipelines do otherwise than synfer-rt. `out` appears whole or not at
    all. Raises UserError if it is not new or empty, for a source that cannot be read, and for a
    graph whose error is above the tolerance of the precision.
    """
    source, out = local(checkpoint), local(out)
    if out.exists() and not (out.is_dir() and not any(out.iterdir())):
        raise UserError(f"{out} exists and is not an empty directory; give another `out`.")
    out.parent.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(prefix=f".{out.name}.", dir=out.parent) as work:
        if (source / MANIFEST).is_file():
            unpack(open_bundle(source), Path(work) / "checkpoint")
            source = Path(work) / "checkpoint"
        read = read_checkpoint(source)
        place = Path(work) / "pipeline"
        place.mkdir()
        _copy_files(read, place)
        for name, graph in graphs_of(read).items():
            _write_graph(graph, place / name / GRAPH, precision)
        for sentence in _otherwise(read):
            remark(sentence)
        if out.exists():
            out.rmdir()
        place.rename(out)


def _write_graph(graph: PipelineGraph, path: Path, precision: str) -> None:
    _export(graph, path, precision)
    _note_parameters(path, graph.module)
    cases = references(graph.module, lambda batch, size=None: graph.inputs)[:1]
    error = max_relative_error(path, cases)
    if not error <= TOLERANCES[precision]:
        raise UserError(
            f"The graph {path.parent.name} differs from PyTorch by {error:.1e} of its largest "
            f"value, more than {TOLERANCES[precision]:.1e}; "
            + ('write it with `precision="fp32"`.' if precision != "fp32" else "report the model.")
        )


def _export(graph: PipelineGraph, path: Path, precision: str) -> None:
    """Write a graph; its batch is free, and the second axis of its first input within `lengths`."""
    batch = Dim(_BATCH, min=1, max=MAX_BATCH)
    shapes = [{0: batch} if value.ndim else {} for value in graph.inputs.values()]
    if graph.lengths is not None:
        least, most = graph.lengths
        shapes[0][1] = Dim("sequence_length", min=least, max=most)
    with torch.no_grad():
        given = tuple(graph.inputs.values())
        program = torch.export.export(graph.module, given, dynamic_shapes=tuple(shapes))
        exported = to_onnx(program, graph.inputs, graph.outputs)
    exported.optimize()
    clear_metadata(exported.model)
    if precision == "fp16":
        store_half(exported.model.graph)
    save(exported.model, path)


def _note_parameters(path: Path, module: nn.Module) -> None:
    """Say in a graph's metadata which initializer is which parameter, where it is one."""
    wanted: dict[tuple[str, bytes], list[tuple[str, str]]] = {}
    for name, parameter in module.named_parameters():
        array = parameter.detach().numpy()
        views = ((array, ""), (array.T, TRANSPOSED)) if array.ndim == 2 else ((array, ""),)
        for view, end in views:
            for stored in (view, view.astype(np.float16)):
                wanted.setdefault(_content(stored), []).append((name, end))
    noted: dict[str, str] = {}
    for initializer, array in _initializers(path):
        for name, end in wanted.get(_content(array), ()):
            noted.setdefault(name, f"{initializer}{end}")
    model = onnx.load(path, load_external_data=False)
    onnx.helper.set_model_props(model, {PARAMETERS: json.dumps(noted)})
    onnx.save(model, path)


def _initializers(path: Path) -> Iterator[tuple[str, np.ndarray]]:
    for name, value in ir.load(path).graph.initializers.items():
        tensor = value.const_value
        if tensor is not None and tensor.dtype in (ir.DataType.FLOAT, ir.DataType.FLOAT16):
            yield name, tensor_array(tensor)


def _content(array: np.ndarray) -> tuple[str, bytes]:
    """Type and bytes, by which arrays that differ in axes of length 1 alone are the same."""
    content = np.ascontiguousarray(array)
    return content.dtype.str, hashlib.sha256(content.data).digest()


def _copy_files(checkpoint: Checkpoint, place: Path) -> None:
    """Write everything but the graphs."""
    directory = checkpoint.directory
    for name in _COPIED:
        shutil.copytree(directory / name, place / name)
    for name, part in PART_OF.items():
        (place / name).mkdir()
        config = read_json(directory / part / CONFIG, "fetch the checkpoint again")
        if part == "unet":
            config["sample_size"] = checkpoint.unet.config.sample_size
        _write_json(place / name / CONFIG, config)
    index = read_json(directory / _INDEX, "fetch the checkpoint again")
    # Pipelines run neither, and would ask for what is not there.
    index |= {"safety_checker": [None, None], "requires_safety_checker": False}
    index |= {"feature_extractor": [None, None], "image_encoder": [None, None]}
    index["tokenizer"] = ["transformers", _tokenizer_class(directory, index["tokenizer"][1])]
    _write_json(place / _INDEX, index)
    for name in BESIDE:
        if (directory / name).is_dir():
            shutil.copytree(directory / name, place / name)
        elif (directory / name).is_file():
            shutil.copyfile(directory / name, place / name)
    _write_json(place / SETTINGS_FILE, checkpoint_settings(checkpoint))
    if checkpoint.adapter is not None:
        save_file(
            {k: v.contiguous() for k, v in adapter_tensors(checkpoint.adapter).items()},
            place / ADAPTER_FILES[0],
            {"format": "pt"},
        )
        (place / ADAPTER_FILES[0]).chmod(0o644)


def _tokenizer_class(directory: Path, name: str) -> str:
    """The class that reads the tokenizer in transformers 4, which optimum's pipelines need, too."""
    folder = directory / "tokenizer"
    whole = (folder / "tokenizer.json").is_file()
    known = name != "TokenizersBackend" and (folder / "vocab.json").is_file()
    return "PreTrainedTokenizerFast" if whole and not known else name


def _write_json(file: Path, content: dict[str, Any]) -> None:
    file.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", "utf-8")


def _otherwise(checkpoint: Checkpoint) -> Iterator[str]:
    """What pipelines do otherwise than synfer-rt with this checkpoint."""
    settings = checkpoint.settings
    index = read_json(checkpoint.directory / _INDEX, "fetch it again")
    if checkpoint.units:
        yield (
            "Pipelines take no action units: the UNet has them at zero, in both branches of "
            f"guidance, at the scale {settings.defaults['au_scale']:g}."
        )
    if settings.defaults["layout"] == "bank":
        yield 'Pipelines start from noise alone, as `layout="none"` does, not from a face.'
    yield (
        f"Pipelines sample with {index['scheduler'][1]} until they are given another scheduler; "
        f"synfer-rt's default is {settings.defaults['solver']} in {settings.defaults['steps']} "
        f"steps at guidance {settings.defaults['guidance']:g}."
    )
