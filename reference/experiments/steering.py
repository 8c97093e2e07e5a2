"""Whether a guide from an ONNX file steers synfer-mini, as a judge reads that did not guide.

The ONNX file is the network that was trained for guiding, exported; it does not label. The bundle
is built from the checkpoint of the bundle under test, with this file as `--guide`.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from reference import classifiers
from reference.evaluation import statistics
from reference.evaluation.action_units import without_expression
from reference.evaluation.pages import plus_minus, table
from reference.evaluation.sampling import facts
from reference.experiments.setting import Setting
from reference.tasks import CLASSES
from synfer_rt.bundle import open_bundle
from synfer_rt.export.api import build_engines
from synfer_rt.export.build.unpack import unpack
from synfer_rt.export.checkpoint.contents import FERANNO_FOLDER
from synfer_rt.export.networks.guiding_classifier import (
    IMAGE_FOLDER,
    LATENT_FOLDER,
    ExpressionNet,
    read_guiding,
)
from synfer_rt.export.training import cache
from synfer_rt.sampling.guidance import semantic_guidance
from synfer_rt.sampling.requests import Request, make_requests
from synfer_rt.sampling.sampler import Sampler

SEED = 41
_UNUSED = (FERANNO_FOLDER, LATENT_FOLDER, "classifiers", "au_reader.*")
STRENGTHS = (0.1, 0.3, 1.0)
_DRAWS = 2000


def guided_sampler(setting: Setting) -> Sampler:
    """The engines with a guide from an ONNX file, built if `work` does not have them."""
    name = setting.bundle.bundle_hash[:12]
    out, checkpoint = (setting.work / f"{kind}-{name}" for kind in ("steered", "to-steer"))
    if not out.exists():
        whole = setting.work / f"checkpoint-{name}"
        if not whole.exists():
            unpack(setting.bundle, whole)
        ignore = shutil.ignore_patterns(*_UNUSED, IMAGE_FOLDER)
        shutil.copytree(whole, checkpoint, ignore=ignore, dirs_exist_ok=True)
        file = setting.work / f"guide-{name}.onnx"
        guide = file, *to_onnx(whole / IMAGE_FOLDER, file)
        build_engines(
            checkpoint, out, guide=guide, precision=setting.bundle.engines["denoiser"].precision
        )
    return Sampler.of(open_bundle(out), setting.backend, setting.threads)


def to_onnx(folder: Path, file: Path) -> tuple[str, str]:
    """Export the network in `folder` to `file`; its label scheme and its input, as of `--guide`."""
    network, names = read_guiding(folder)
    assert isinstance(network, ExpressionNet)
    size = network.config.size
    shapes = ({0: torch.export.Dim("batch", min=1, max=64)},)
    given = (torch.zeros(2, 3, size, size),)
    torch.onnx.export(network, given, file, dynamo=True, dynamic_shapes=shapes, verbose=False)
    return ",".join(names), f"{size},rgb,mean=0.5/0.5/0.5,std=0.5/0.5/0.5"


def requests_of(sampler: Sampler, count: int) -> list[Request]:
    """So many requests, whose labels take turns and in which nothing else says the expression."""
    requests = make_requests(sampler.bundle, layout="none", seed=SEED)[:count]
    return [
        replace(request, aus={}, prompt=without_expression(request.prompt)) for request in requests
    ]


def images_of(
    sampler: Sampler, requests: Sequence[Request], strength: float, work: Path
) -> np.ndarray:
    """Samples uint8 [n, H, W, 3] of `requests`, guided with this strength; 0 is without."""
    way = sampler.bundle.trajectory(strength=1.0)
    semantic = semantic_guidance(sampler.bundle, strength, "text") if strength else None

    def make(rows: np.ndarray) -> dict[str, np.ndarray]:
        some = [requests[i] for i in rows]
        samples = sampler.sample(some, way, len(some), semantic)
        return {"images": np.stack([sample.image for sample in samples])}

    folder = work / f"steered-samples-{cache.key(*facts(sampler, requests, way), semantic)}"
    return cache.rows(folder, len(requests), make, 32, f"strength {strength:g}")["images"]


def measure(setting: Setting, count: int) -> dict[str, Any]:
    """How often the judge reads the label, without and with the guide, from the same noise."""
    sampler = guided_sampler(setting)
    requests = requests_of(sampler, count)
    labels = np.array([CLASSES.index(request.label) for request in requests])

    def right(strength: float) -> np.ndarray:
        images = images_of(sampler, requests, strength, setting.work)
        return classifiers.predict(setting.judge, images).argmax(1) == labels

    before = right(0)
    rows: list[dict[str, Any]] = [{"strength": 0, "judge": statistics.share(before)}]
    for strength in STRENGTHS:
        after = right(strength)
        gain = paired_gain(after, before)
        rows.append({"strength": strength, "judge": statistics.share(after), "gain": gain})
    return {"images": count, "rows": rows}


def paired_gain(after: np.ndarray, before: np.ndarray) -> tuple[float, float]:
    """Share of bool [n] `after` minus that of `before`, and its half-width by paired bootstrap."""
    change = after.astype(float) - before
    half = statistics.bootstrap(lambda rows: change[rows].mean(), len(change), _DRAWS)
    return float(change.mean()), half


def lines(found: Mapping[str, Any]) -> list[str]:
    """The part of the page about steering."""
    rows = [
        [
            f"{row['strength']:g}" if row["strength"] else "no guide",
            plus_minus(row["judge"]),
            plus_minus(row["gain"]) if "gain" in row else "",
        ]
        for row in found["rows"]
    ]
    return [
        "synfer-mini with the form `text` of semantic guidance: the network that was trained for "
        "guiding on images (`reference/train_guides.py`), exported to ONNX and built with "
        f"`--guide`. {found['images']} samples a row, from noise alone. Prompts do not name the "
        "expression and action units are 0, so the guide alone pulls towards the label. "
        "The judge was trained on renders; it neither guides nor labels. *gain*: the points "
        "that the guide adds, in pairs of the same requests and noise, with the half-width of a "
        f"95 % interval by paired bootstrap ({_DRAWS} draws).",
        "",
        *table(["strength", "judge reads the label (%)", "gain"], rows),
    ]
