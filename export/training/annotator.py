"""Training FERAnno's head on the features of a checkpoint's frozen UNet (arXiv 2410.09865, 3.4)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from synfer_rt.errors import UserError
from synfer_rt.export.checkpoint.contents import Checkpoint
from synfer_rt.export.graphs.trained_feranno import (
    FERAnnoConfig,
    model_fingerprint,
    new_feranno,
    prompt_of,
    save_head,
)
from synfer_rt.export.networks.feranno import FERAnno
from synfer_rt.export.networks.modules import Encoder
from synfer_rt.export.sentences import first_line
from synfer_rt.export.training import cache, evaluation, features, frozen, state
from synfer_rt.export.training.augmentation import as_input
from synfer_rt.export.training.epochs import Recipe, fit
from synfer_rt.export.training.evaluation import Evaluation
from synfer_rt.export.training.faces import Faces
from synfer_rt.export.training.stages import Stage
from synfer_rt.export.training.state import Place

WEIGHTS = "model.safetensors"
_LAST_LAYER = "head.1."
"""The linear layer at the end of the head, which divides its logits by the temperature."""


@dataclass(frozen=True)
class AnnotatorSettings:
    """How a head is trained.

    `views` augmented views of each image are kept; `images` is the largest number of images, None
    for all; `width` is that of the head's tokens. With `temperature`, the head's logits are divided
    by the one that fits held-out images best. `start` is a folder with a head to begin from.
    """

    epochs: int = 8
    views: int = 2
    images: int | None = None
    batch: int = 64
    rate: float = 1.5e-3
    width: int = 64
    seed: int = 0
    temperature: bool = True
    start: Path | None = None


def train(
    checkpoint: Checkpoint,
    faces: Faces,
    settings: AnnotatorSettings,
    place: Place,
    device: torch.device,
    stage: Stage,
    remark: Callable[[str], None],
) -> Evaluation:
    """Train a head for the checkpoint on `faces`, and write it with its evaluation.

    The same call goes on with a training that was stopped, more epochs with a finished one. Raises
    UserError for other settings than those that it was begun with, for a UNet that FERAnno cannot
    read, and for a full disk.
    """
    scheme = faces.scheme
    config = FERAnnoConfig(scheme, prompt_of(scheme), settings.width, model_fingerprint(checkpoint))
    rows = faces.limited(settings.images, settings.seed)
    described = _described(checkpoint, faces, settings, config)
    state.begin(place.own, described)
    if state.is_finished(place.own, settings.epochs) and (
        found := evaluation.finished(place.out, settings.epochs)
    ):
        remark(f"{place.out} is already complete.")
        return found
    annotator, encoder = _networks(checkpoint, config, settings, device)
    key = cache.key(
        config.model, described["vae"], config.prompt, faces.key, cache.digest(rows), settings.seed
    )
    folder = place.work / f"features-{key}"
    remark(features.check_room(folder, annotator, len(rows), settings.views))
    at_once = frozen.at_once(checkpoint, device)
    inputs = features.Features(
        folder,
        annotator,
        encoder,
        faces.images,
        rows,
        settings.views,
        settings.seed,
        at_once,
        stage,
    )

    def logits(numbers: np.ndarray, rng: np.random.Generator) -> Tensor:
        return annotator.head(*inputs[numbers])

    recipe = Recipe(settings.epochs, settings.batch, settings.rate, settings.seed, 0.05, clip=1.0)
    classes = np.tile(faces.classes[rows], settings.views)
    fit(annotator.head, logits, classes, recipe, place.own, stage, remark)
    held = predicted(annotator, encoder, faces, at_once, stage)
    return _finished(annotator, faces, config, len(rows), settings, place.out, held)


def _described(
    checkpoint: Checkpoint, faces: Faces, settings: AnnotatorSettings, config: FERAnnoConfig
) -> dict[str, object]:
    """What decides the weights, but the number of epochs."""
    given = {name: value for name, value in asdict(settings).items() if name != "epochs"}
    start = settings.start
    return {
        "checkpoint": config.model,
        "vae": frozen.vae_fingerprint(checkpoint),
        "classes": config.label_scheme,
        **given,
        "start": None if start is None else cache.digest(np.fromfile(start / WEIGHTS, np.uint8)),
        "data": faces.digest,
    }


def _networks(
    checkpoint: Checkpoint, config: FERAnnoConfig, settings: AnnotatorSettings, device: torch.device
) -> tuple[FERAnno, Encoder]:
    """The checkpoint's UNet with an untrained head, and the encoder to its latents."""
    torch.manual_seed(settings.seed)
    annotator = new_feranno(checkpoint, *frozen.parts(checkpoint), config)
    annotator.eval().requires_grad_(False).head.requires_grad_(True)
    if (start := settings.start) is not None:
        try:
            annotator.head.load_state_dict(load_file(start / WEIGHTS))
        except (OSError, RuntimeError, SafetensorError) as error:
            raise UserError(
                f"`start` {start} does not hold a head that fits this checkpoint, its classes and "
                f"`width` ({first_line(error)}); name another, or leave it out."
            ) from None
    return annotator.to(device), Encoder(checkpoint.vae).eval().to(device)


@torch.no_grad()
def predicted(
    annotator: FERAnno, encoder: Encoder, faces: Faces, at_once: int, stage: Stage
) -> np.ndarray:
    """The logits [n, classes] of the held-out images as they are, float32."""
    found: list[np.ndarray] = []
    device, rows = frozen.place_of(annotator), faces.held
    with stage("reading held-out images", len(rows), 0) as report:
        for begin in range(0, len(rows), at_once):
            images = as_input(faces.images(rows[begin : begin + at_once])).to(device)
            found.append(annotator.logits(frozen.encoded(encoder, images)).cpu().numpy())
            report(min(begin + at_once, len(rows)))
    return np.concatenate(found)


def _finished(
    annotator: FERAnno,
    faces: Faces,
    config: FERAnnoConfig,
    trained_on: int,
    settings: AnnotatorSettings,
    out: Path,
    logits: np.ndarray,
) -> Evaluation:
    """Measure the trained head by its held-out logits, and write it into `out`."""
    temperature = evaluation.temperature_of(logits, faces) if settings.temperature else None
    weights = {
        name: x / temperature if temperature and name.startswith(_LAST_LAYER) else x
        for name, x in annotator.head.state_dict().items()
    }
    with cache.writing(out):
        save_head(out, weights, config)
    found = evaluation.measured(logits, faces, temperature)
    figures = evaluation.figures_of(faces, trained_on, settings.epochs, **found)
    return evaluation.write(out, figures, evaluation.lines_of(logits, faces, temperature))
