"""Checkpoint -> bundle: export every engine, verify it against PyTorch, write the manifest."""

from __future__ import annotations

import os
import platform
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from importlib import metadata
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
import onnx
import onnx_ir as ir
import torch
from torch import Tensor, nn

import synfer_rt
from synfer_rt.bundle import MANIFEST, Bundle, open_bundle, write_manifest
from synfer_rt.errors import UserError
from synfer_rt.solvers import HISTORY_SLOTS

from .checkpoint import LAYOUTS_FILE, Checkpoint, source_hashes
from .classifier import ClassifierSource, compose_classifier, reference
from .modules import Conditioner, Decoder, Denoiser, Encoder
from .onnx_export import export_onnx, save, store_half
from .tokenizer import PROBES, export_tokenizer
from .verify import BATCHES, TOLERANCES, Inputs, check, max_relative_error

PRECISIONS = tuple(TOLERANCES)
MODEL_CARD = "README.md"
"""A checkpoint's model card goes with its bundle."""
_EXAMPLE_BATCH = 2
_VERSIONS = ("torch", "diffusers", "transformers", "onnx", "onnxscript", "onnxruntime")


@dataclass(frozen=True)
class Built:
    """One finished engine: bytes of its files, its error against PyTorch, seconds it took."""

    name: str
    bytes: int
    precision: str
    error: float
    seconds: float


@dataclass(frozen=True)
class _Graph:
    """A module to export; `static` are the inputs that have no batch in front."""

    name: str
    module: nn.Module
    inputs: Inputs
    outputs: tuple[str, ...]
    static: frozenset[str] = frozenset()


def build_bundle(
    checkpoint: Checkpoint,
    out: Path,
    precision: str = "fp32",
    tolerance: float | None = None,
    force: bool = False,
    report: Callable[[Built], None] = lambda built: None,
) -> Bundle:
    """Export `checkpoint` into the bundle `out`, calling `report` after each engine.

    `precision` is how weights are stored, "fp32" or "fp16"; `tolerance` the largest relative error
    allowed, None for that of verify.TOLERANCES. The bundle is built in a directory beside `out`
    and renamed when it is whole. Raises UserError when `out` exists (unless `force`, which replaces
    a bundle but nothing else), cannot be written, or an engine differs from PyTorch.
    """
    allowed = TOLERANCES[precision] if tolerance is None else tolerance
    with finished_directory(out, force) as making:
        max_length = export_tokenizer(
            checkpoint.tokenizer,
            checkpoint.text_encoder.config.max_position_embeddings,
            making / "tokenizer.json",
        )
        layouts = _copy_layouts(checkpoint, making)
        if (card := checkpoint.directory / MODEL_CARD).is_file():
            shutil.copyfile(card, making / MODEL_CARD)
        engines: dict[str, Any] = {}

        def finish(name: str, path: Path, error: float, start: float, **extra: Any) -> None:
            check(name, error, allowed)
            size = sum(file.stat().st_size for file in making.glob(f"{path.name}*"))
            engines[name] = {
                "file": path.name,
                "precision": precision,
                **_interface(path),
                "parity": {
                    "tolerance": allowed,
                    "max_relative_error": error,
                    "batches": list(BATCHES),
                },
                **extra,
            }
            report(Built(name, size, precision, error, time.perf_counter() - start))

        for graph in _graphs(checkpoint, max_length):
            start, path = time.perf_counter(), making / f"{graph.name}.onnx"
            example = graph.inputs(_EXAMPLE_BATCH)
            export_onnx(graph.module, example, graph.outputs, graph.static, path, precision)
            error = max_relative_error(path, graph.module, graph.inputs)
            finish(graph.name, path, error, start)
        for source in checkpoint.classifiers:
            start, name = time.perf_counter(), f"classifier.{source.name}"
            path = making / f"{name}.onnx"
            error = _build_classifier(source, checkpoint.image_size, path, precision)
            finish(name, path, error, start, label_scheme=source.label_scheme)
        write_manifest(making, _manifest(checkpoint, engines, max_length, layouts))
    return open_bundle(out)


@contextmanager
def finished_directory(out: Path, force: bool) -> Iterator[Path]:
    """A directory beside `out` that takes its name when the block ends well, or is removed."""
    _check_target(out, force)
    making = out.parent / f".{out.name}.building-{os.getpid()}"
    try:
        making.mkdir(parents=True)
        yield making
        replaced = out.parent / f".{out.name}.replaced-{os.getpid()}"
        if out.exists():
            out.rename(replaced)
        making.rename(out)
        shutil.rmtree(replaced, ignore_errors=True)
    except OSError as error:
        raise UserError(
            f"{out} cannot be written ({error.strerror or error}); give --out a directory on a "
            "disk with room and permission."
        ) from error
    finally:
        shutil.rmtree(making, ignore_errors=True)


def _check_target(out: Path, force: bool) -> None:
    if not out.exists():
        return
    if not force:
        raise UserError(f"{out} exists; give another --out, or --force to replace it.")
    if not out.is_dir() or (any(out.iterdir()) and not (out / MANIFEST).exists()):
        raise UserError(f"{out} is no bundle, so --force leaves it alone; give another --out.")


def _graphs(checkpoint: Checkpoint, max_length: int) -> Iterator[_Graph]:
    """The four engines of the model itself, with example inputs that depend on the batch alone."""
    channels, height, width = checkpoint.latent_shape
    conditioner = Conditioner(
        checkpoint.text_encoder,
        checkpoint.unet,
        checkpoint.adapter,
        checkpoint.settings.class_labels,
    ).eval()
    denoiser = Denoiser(checkpoint.unet, conditioner.outputs).eval()
    slots = HISTORY_SLOTS

    def to_condition(batch: int) -> dict[str, Tensor]:
        texts = [text for i in range(batch) for text in ("", PROBES[1 + i % (len(PROBES) - 1)])]
        options = {"padding": "max_length", "truncation": True, "max_length": max_length}
        ids = checkpoint.tokenizer(texts, **options)["input_ids"]
        given = {"tokens": torch.tensor(ids).view(batch, 2, max_length)}
        if conditioner.takes_aus:
            draw = _generator(batch)
            aus = torch.rand(batch, 2, checkpoint.units, generator=draw)
            aus[:, 0] = 0
            given |= {"aus": aus, "au_scale": 0.5 + torch.rand(batch, generator=draw)}
        return given

    def latents(batch: int) -> dict[str, Tensor]:
        shape = (batch, channels, height, width)
        return {"latents": torch.randn(shape, generator=_generator(batch))}

    def to_denoise(batch: int) -> dict[str, Tensor]:
        draw = _generator(batch)
        with torch.no_grad():
            conditioning = conditioner(*to_condition(batch).values())
        shape = (batch, slots, channels, height, width)
        return {
            **latents(batch),
            "history": torch.randn(shape, generator=draw),
            "timestep": torch.tensor(checkpoint.schedule["num_train_timesteps"] / 2),
            "guidance": 1 + 4 * torch.rand(batch, generator=draw),
            "coefficients": torch.randn(slots + 1, slots + 2, generator=draw),
            **dict(zip(conditioner.outputs, conditioning, strict=True)),
        }

    def images(batch: int) -> dict[str, Tensor]:
        return {"images": _images(batch, checkpoint.image_size)}

    yield _Graph("conditioner", conditioner, to_condition, conditioner.outputs)
    outputs = ("next_latents", "next_history", "prediction")
    static = frozenset({"timestep", "coefficients"})
    yield _Graph("denoiser", denoiser, to_denoise, outputs, static)
    yield _Graph("decoder", Decoder(checkpoint.vae).eval(), latents, ("images",))
    yield _Graph("encoder", Encoder(checkpoint.vae).eval(), images, ("mean", "logvar"))


def _generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def _images(batch: int, size: tuple[int, int]) -> Tensor:
    return torch.rand((batch, 3, *size), generator=_generator(batch))


def _build_classifier(
    source: ClassifierSource, image_size: tuple[int, int], path: Path, precision: str
) -> float:
    model = ir.from_proto(compose_classifier(source, image_size))
    if precision == "fp16":
        store_half(model.graph)
    save(model, path)
    inputs = partial(_one_input, size=image_size)
    return max_relative_error(path, partial(reference, source), inputs)


def _one_input(batch: int, size: tuple[int, int]) -> dict[str, Tensor]:
    return {"images": _images(batch, size)}


def _interface(path: Path) -> dict[str, Any]:
    """The engine's opset, inputs and outputs as the file has them."""
    model = onnx.load(path, load_external_data=False)

    def tensors(values: Any) -> list[dict[str, Any]]:
        return [
            {
                "name": value.name,
                "dtype": np.dtype(
                    onnx.helper.tensor_dtype_to_np_dtype(value.type.tensor_type.elem_type)
                ).name,
                "shape": [d.dim_param or d.dim_value for d in value.type.tensor_type.shape.dim],
            }
            for value in values
        ]

    opset = next(entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx"))
    return {
        "opset": opset,
        "inputs": tensors(model.graph.input),
        "outputs": tensors(model.graph.output),
    }


def _manifest(
    checkpoint: Checkpoint,
    engines: dict[str, Any],
    max_length: int,
    layouts: dict[str, Any] | None,
) -> dict[str, Any]:
    settings = checkpoint.settings
    channels, height, width = checkpoint.latent_shape
    versions = {name: metadata.version(name) for name in _VERSIONS}
    return {
        "name": settings.name,
        "version": settings.version,
        "licence": settings.licence,
        "description": settings.description,
        "image_size": list(checkpoint.image_size),
        "latent": {
            "channels": channels,
            "height": height,
            "width": width,
            "scaling_factor": checkpoint.vae.config.scaling_factor,
        },
        "prediction_type": checkpoint.prediction_type,
        "schedule": checkpoint.schedule,
        "history_slots": HISTORY_SLOTS,
        "au_vocabulary": settings.au_vocabulary,
        "label_scheme": settings.label_scheme,
        "tokenizer": {"file": "tokenizer.json", "max_length": max_length},
        "defaults": settings.defaults,
        "layouts": layouts,
        "engines": engines,
        "source": {
            "name": checkpoint.directory.resolve().name,
            "sha256": source_hashes(checkpoint),
        },
        "exporter": {
            "synfer_rt": synfer_rt.__version__,
            **versions,
            "python": platform.python_version(),
        },
    }


def _copy_layouts(checkpoint: Checkpoint, making: Path) -> dict[str, Any] | None:
    """Copy the layout bank; UserError unless it holds latents of this model with their words."""
    path = checkpoint.layouts
    if path is None:
        return None
    try:
        with np.load(path, allow_pickle=False) as arrays:
            latents, *words = (arrays[k].shape for k in ("latents", "age", "gender", "ancestry"))
    except (OSError, ValueError, KeyError, TypeError, EOFError, BadZipFile) as error:
        raise UserError(f"{path} is no layout bank ({error}); make it again.") from None
    shape = checkpoint.latent_shape
    if latents[1:] != shape or any(word != latents[:1] for word in words):
        raise UserError(
            f"{path} holds latents {list(latents)} and words {[list(word) for word in words]}; "
            f"this model needs [N, {', '.join(map(str, shape))}] and [N] each; make it again."
        )
    shutil.copyfile(path, making / LAYOUTS_FILE)
    return {"file": LAYOUTS_FILE, "count": latents[0]}
