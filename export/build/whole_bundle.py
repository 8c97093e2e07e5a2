"""Checkpoint -> bundle: its engines, its small files and its manifest, all of it or nothing."""

from __future__ import annotations

import os
import platform
import shutil
from collections.abc import Callable, Mapping
from dataclasses import asdict, replace
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

import synfer_rt
from synfer_rt.backends import status
from synfer_rt.backends.parity import OPENVINO, measured, reason
from synfer_rt.bundle import FERANNO, MANIFEST, Bundle, write_manifest
from synfer_rt.bundle.engine_specs import CONDITIONAL, DENOISER, DISTILLED, REUSING, STORING
from synfer_rt.bundle.qualities import BEST, FAST
from synfer_rt.diffusion.solvers import HISTORY_SLOTS
from synfer_rt.errors import UserError
from synfer_rt.export.build.all_engines import Options, Recipe, make_engines
from synfer_rt.export.build.cuda_engines import check_precision, with_cuda_engines
from synfer_rt.export.build.entries import Built
from synfer_rt.export.build.hashes import sha256
from synfer_rt.export.build.keys import (
    LIBRARIES,
    engine_key,
    file_hashes,
    network_key,
    source_hashes,
)
from synfer_rt.export.build.log import LOG, log_of, to_stderr
from synfer_rt.export.build.one_engine import Source
from synfer_rt.export.build.plans import check_plan_options, make_plans
from synfer_rt.export.build.staging import Staging, log_file, staging
from synfer_rt.export.checkpoint.contents import LAYOUTS_FILE, Checkpoint
from synfer_rt.export.checkpoint.index import write_index
from synfer_rt.export.checkpoint.settings import model_name
from synfer_rt.export.checkpoint.tokenizer import export_tokenizer
from synfer_rt.export.graphs.engine_graphs import check_networks, engine_names
from synfer_rt.export.onnx.shared_weights import share_weights
from synfer_rt.paths import local

MODEL_CARD = "README.md"
"""A checkpoint's model card goes with its bundle."""
SHARING = (
    *(DENOISER, CONDITIONAL, STORING, REUSING, DISTILLED, "decoder", FERANNO),
    *("guide.text", "guide.text-latent", "guide.latent"),
)
"""Engines that contain the same networks; the first ones are in every bundle."""


def build_bundle(
    source: Source,
    out: Path,
    options: Options | None = None,
    report: Callable[[Built], None] = lambda built: None,
    remark: Callable[[str], None] = to_stderr,
) -> Bundle:
    """Build `source` into the bundle `out`, calling `report` after each engine and plan.

    `remark` is called with each sentence on what is done otherwise than the checkpoint says.

    Engines of an earlier build of the same model, finished or interrupted, are reused if their
    build key is the same (keys.py). `<out>.log` records the build. Raises UserError for a
    checkpoint, an `out` (staging.py) or options that cannot be used, and for an engine whose error
    is above the tolerance; an old bundle is then unchanged.
    """
    options = options or Options()
    local(source.directory)
    out = Path(os.path.realpath(local(out)))  # a link stays one, and what it leads to is replaced
    _check_usable(source, options)
    checkpoint = source.read()
    _check_stems(checkpoint)
    check_networks(checkpoint)
    hashes = file_hashes(checkpoint)
    target = staging(out, checkpoint.settings.name, options.force, set(hashes.values()))
    with target as place, log_of(log_file(out), LIBRARIES):
        LOG.info("building %s from %s with %s", out, source, options)
        for sentence in checkpoint.remarks:
            LOG.warning("%s", sentence)
            remark(sentence)
        recipe = _prepare(checkpoint, source, place, options, hashes)
        del checkpoint  # every engine reads its own, so that no modules of others are in memory
        engines = make_engines(recipe, report)
        plans = make_plans(recipe, engines, report)
        fields = {**recipe.manifest, "engines": engines} | ({"plans": plans} if plans else {})
        entries = [engines, *plans.values()]
        files = {entry["file"] for named in entries for entry in named.values()}
        files |= {f"{file}.data" for file in files}
        whole = place.assemble(files | {"tokenizer.json", LAYOUTS_FILE, MODEL_CARD})
        saved = share_weights(
            [whole / engines[name]["file"] for name in SHARING if name in engines]
        )
        LOG.info("%d bytes of weights are shared", saved)
        for named in plans.values():
            for name, plan in named.items():
                plan["source_sha256"] = sha256(whole / engines[name]["file"])
        if options.precision != "int8":  # whose engines do not keep the tensors as they were
            write_index(source.read(), whole, {name: e["file"] for name, e in engines.items()})
        bundle = write_manifest(whole, fields)
        if "cuda" in options.targets:
            bundle = with_cuda_engines(bundle, place, options.jobs, report, remark)
        if status(OPENVINO).works:
            bundle = measured(bundle, lambda spec: LOG.info("%s", spec), anew=options.force)
        if "openvino" in options.targets:
            _check_openvino(bundle)
        LOG.info("%s is whole", out)
    return replace(bundle, path=out)


def _check_usable(source: Source, options: Options) -> None:
    """Raise UserError for a bundle instead of a checkpoint, and for targets not to be had here."""
    if (source.directory / MANIFEST).is_file():
        raise UserError(
            f"{source.directory} is a bundle; give its checkpoint, or add CUDA engines to it with "
            "`synfer_rt.export.add_cuda_engines`."
        )
    if "openvino" in options.targets and not (found := status(OPENVINO)).works:
        raise UserError(f'`target="openvino"` does not work here: {found.reason}; {found.remedy}.')
    if source.cache_depth is not None and options.precision == "int8":
        raise UserError(
            "int8 engines do not cache features; leave out `cache_depth`, or build with "
            '`precision="fp16"`.'
        )
    check_plan_options(options)
    if "cuda" in options.targets:
        check_precision(options.precision)


def _check_openvino(bundle: Bundle) -> None:
    """Raise UserError for the first engine whose results on OpenVINO are wrong."""
    for name, spec in bundle.engines.items():
        parity = spec.parity_openvino
        if parity is not None and not parity.holds:
            raise UserError(
                f"The engine {name} cannot run on OpenVINO: {reason(parity)}. Leave out "
                '`target="openvino"`: the bundle then runs this engine on ONNX Runtime, and the '
                "others on OpenVINO."
            )


def _check_stems(checkpoint: Checkpoint) -> None:
    paths: dict[str, Path] = {}
    for source in checkpoint.classifiers:
        other = paths.setdefault(source.name, source.path)
        if other is not source.path:
            raise UserError(
                f"The classifiers {other} and {source.path} would both be called "
                f"classifier.{source.name}; rename one of the files."
            )


def _prepare(
    checkpoint: Checkpoint,
    source: Source,
    place: Staging,
    options: Options,
    hashes: Mapping[Path, str],
) -> Recipe:
    """Write the small files of the bundle and return what its engines are made of."""
    length = export_tokenizer(
        checkpoint.tokenizer,
        checkpoint.text_encoder.config.max_position_embeddings,
        place.bundle / "tokenizer.json",
    )
    (place.bundle / LAYOUTS_FILE).unlink(missing_ok=True)
    layouts = _copy_layouts(checkpoint, place.bundle)
    (place.bundle / MODEL_CARD).unlink(missing_ok=True)
    if (card := checkpoint.directory / MODEL_CARD).is_file():
        shutil.copyfile(card, place.bundle / MODEL_CARD)
    keys = build_keys(checkpoint, source, options, length, hashes)
    manifest = _manifest(checkpoint, length, layouts, hashes)
    return Recipe(source, place, options, manifest, keys, length)


def build_keys(
    checkpoint: Checkpoint,
    source: Source,
    options: Options,
    max_length: int,
    hashes: Mapping[Path, str],
) -> dict[str, str]:
    """The build key of every engine's export, by engine; `hashes` are file_hashes(checkpoint)."""
    loras = [(hashes[lora.path], lora.scale) for lora in source.loras]
    keys = {}
    for name in engine_names(checkpoint):
        precision = options.exported_precision_of(name)
        keys[name] = engine_key(checkpoint, hashes, name, precision, max_length, loras)
    for name, network in checkpoint.networks.items():
        precision = options.exported_precision_of(name)
        keys[name] = network_key(network, checkpoint, precision, hashes[network.path])
    return keys


def _manifest(
    checkpoint: Checkpoint,
    max_length: int,
    layouts: dict[str, Any] | None,
    hashes: Mapping[Path, str],
) -> dict[str, Any]:
    """What bundle.json says besides the engines."""
    settings = checkpoint.settings
    channels, height, width = checkpoint.latent_shape
    versions = {name: metadata.version(name) for name in LIBRARIES}
    return {
        "name": settings.name,
        "version": settings.version,
        "licence": settings.licence,
        "description": settings.description,
        **({"annotators_know": settings.annotators_know} if settings.annotators_know else {}),
        **({"face_template": settings.face_template} if settings.face_template else {}),
        "image_size": list(checkpoint.image_size),
        **({"sizes": asdict(checkpoint.sizes)} if checkpoint.sizes else {}),
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
        **({"guidance_embedding": True} if checkpoint.embeds_guidance else {}),
        "defaults": settings.defaults,
        **({"qualities": _qualities(settings.distilled)} if settings.distilled else {}),
        "layouts": layouts,
        "source": {
            "name": model_name(checkpoint.directory),
            "sha256": source_hashes(checkpoint, hashes),
        },
        "exporter": {
            "synfer_rt": synfer_rt.__version__,
            **versions,
            "python": platform.python_version(),
        },
    }


def _qualities(distilled: Mapping[str, Any]) -> dict[str, Any]:
    return {BEST: {"denoiser": DENOISER}, FAST: {"denoiser": DISTILLED, **distilled}}


def _copy_layouts(checkpoint: Checkpoint, making: Path) -> dict[str, Any] | None:
    """Copy the layout bank; UserError unless it has latents of this model, and their words."""
    path = checkpoint.layouts
    if path is None:
        return None
    try:
        with np.load(path, allow_pickle=False) as arrays:
            latents, *words = (arrays[k].shape for k in ("latents", "age", "gender", "ancestry"))
    except Exception as error:  # zipfile, zlib and numpy raise their own kinds
        raise UserError(f"{path} is not a layout bank ({error}); make it again.") from None
    shape = checkpoint.latent_shape
    if latents[1:] != shape or any(word != latents[:1] for word in words):
        raise UserError(
            f"{path} holds latents {list(latents)} and words {[list(word) for word in words]}; "
            f"this model needs [N, {', '.join(map(str, shape))}] and [N] each; make it again."
        )
    shutil.copyfile(path, making / LAYOUTS_FILE)
    return {"file": LAYOUTS_FILE, "count": latents[0]}
