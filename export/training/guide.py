"""Training a guiding classifier on clean latents, or images, as the UNet predicts them from noise.

Guidance classifies x0 as the UNet predicts it from noisy latents, which is blurred. The training
set therefore holds two versions of every image: an augmented view, and such a prediction, made by
the checkpoint's own UNet from noise of a random timestep. Both are kept on disk as float16.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from synfer_rt.errors import UserError
from synfer_rt.export.checkpoint.contents import Checkpoint
from synfer_rt.export.graphs.trained_feranno import model_fingerprint
from synfer_rt.export.networks.guiding_classifier import ExpressionNet, NetConfig
from synfer_rt.export.networks.modules import Decoder, Encoder
from synfer_rt.export.training import cache, evaluation, frozen, state
from synfer_rt.export.training.augmentation import as_input, augmented, generators, mirrored
from synfer_rt.export.training.epochs import Recipe, fit
from synfer_rt.export.training.evaluation import Evaluation
from synfer_rt.export.training.faces import Faces
from synfer_rt.export.training.frozen import CleanPrediction, encoded
from synfer_rt.export.training.stages import Stage
from synfer_rt.export.training.state import Place

LATEST = 0.7
"""Predictions are made from noise of at most this part of the schedule; guidance starts later."""
LEVELS = (0.0, 0.2, 0.4, 0.6)
"""Noise levels of the reported accuracy, as parts of the schedule; 0 is the encoded image."""
VIEWS = 1
"""Augmented views of an image beside its prediction."""
_SMALLEST = 4
"""Positions along the edge of a network's last maps."""
_PATCHES = 32
"""Patches along the edge of an image, at most."""
_WIDTHS = {"latent": (32, 64, 96), "image": (24, 40, 64, 96)}
_BYTES = 2  # of a float16

Space = Literal["latent", "image"]


@dataclass(frozen=True)
class GuideSettings:
    """How a guide is trained; `images` is the largest number of images, None for all."""

    space: Space = "latent"
    epochs: int = 4
    images: int | None = None
    batch: int = 64
    rate: float = 2e-3
    seed: int = 0


def net_config(checkpoint: Checkpoint, space: Space, scheme: str) -> NetConfig:
    """The network for a checkpoint's latents or images.

    Its stages halve the maps to 4 positions or as near as possible. Raises UserError for a
    checkpoint whose images are not square.
    """
    channels, height, width = checkpoint.latent_shape
    if height != width:
        size = "x".join(map(str, checkpoint.image_size))
        raise UserError(
            f"A guide is trained for square images, but this checkpoint makes {size}; give a "
            "checkpoint whose UNet has a square sample_size."
        )
    size, patch = height, 1
    if space == "image":
        channels, size = 3, checkpoint.image_size[0]
        patch = max(2, size // _PATCHES)
    edge, widths = size // patch, list(_WIDTHS[space])
    stages = 1
    while edge % 2 == 0 and edge // 2 >= _SMALLEST:
        edge, stages = edge // 2, stages + 1
    widths += widths[-1:] * (stages - len(widths))
    return NetConfig(channels, size, patch, tuple(widths[:stages]), scheme)


def train(
    checkpoint: Checkpoint,
    faces: Faces,
    settings: GuideSettings,
    place: Place,
    device: torch.device,
    stage: Stage,
    remark: Callable[[str], None],
) -> Evaluation:
    """Train a guide for the checkpoint on `faces`, and write it with its evaluation.

    Going on and errors are those of `annotator.train`.
    """
    config = net_config(checkpoint, settings.space, faces.scheme)
    rows = faces.limited(settings.images, settings.seed)
    model, vae = model_fingerprint(checkpoint), frozen.vae_fingerprint(checkpoint)
    given = {name: value for name, value in asdict(settings).items() if name != "epochs"}
    described = {"checkpoint": model, "vae": vae, "classes": faces.scheme, **given}
    state.begin(place.own, described | {"data": faces.digest})
    if state.is_finished(place.own, settings.epochs) and (
        found := evaluation.finished(place.out, settings.epochs)
    ):
        remark(f"{place.out} is already complete.")
        return found
    key = cache.key(
        model, vae, faces.key, cache.digest(rows), cache.digest(faces.held), settings.seed, LATEST
    )
    source = _Source(checkpoint, device, faces, settings.seed, stage)
    count = (VIEWS + 1) * len(rows) + len(LEVELS) * len(faces.held)
    work = place.work
    remark(source.check_room(work / f"latents-{key}", count, settings.space))
    inputs = source.training_set(rows, work / f"latents-{key}")
    held = source.held_out_set(work / f"held-out-{key}")
    if settings.space == "image":
        inputs = source.decoded(inputs, work / f"decoded-{key}")
        held = source.decoded(held, work / f"decoded-held-out-{key}")
    torch.manual_seed(settings.seed)
    network = ExpressionNet(config).to(device)
    recipe = Recipe(settings.epochs, settings.batch, settings.rate, settings.seed, 0.1)
    classes = np.tile(faces.classes[rows], VIEWS + 1)
    fit(network, disturbed(network, inputs), classes, recipe, place.own, stage, remark)
    return _finished(network, held, faces, settings, len(rows), place.out)


class _Source:
    """The checkpoint's VAE and UNet, which make the inputs."""

    def __init__(
        self, checkpoint: Checkpoint, device: torch.device, faces: Faces, seed: int, stage: Stage
    ) -> None:
        self._predict = CleanPrediction(checkpoint, device)
        self._encoder = Encoder(checkpoint.vae).eval().to(device)
        self._decoder = Decoder(checkpoint.vae).eval().to(device)
        self._device, self._faces, self._seed, self._stage = device, faces, seed, stage
        self._at_once = frozen.at_once(checkpoint, device)
        self._latent, self._image = checkpoint.latent_shape, (3, *checkpoint.image_size)

    def check_room(self, folder: Path, count: int, space: Space) -> str:
        """A sentence on the disk that `count` inputs take; UserError if they do not fit."""
        shapes = [self._latent] + ([self._image] if space == "image" else [])
        row = _BYTES * sum(int(np.prod(shape)) for shape in shapes)
        finished = cache.done(folder) if space == "latent" else 0
        return cache.check_room(folder.parent, count, finished, row, f"{count} inputs")

    def training_set(self, rows: np.ndarray, folder: Path) -> np.ndarray:
        """Latents float16 [(VIEWS + 1) * n, C, h, w] of n rows; predictions come last."""

        @torch.no_grad()
        def make(numbers: np.ndarray) -> dict[str, np.ndarray]:
            view, i = np.divmod(numbers, len(rows))
            draws = generators(self._seed, numbers)
            batch = as_input(self._faces.images(rows[i])).to(self._device)
            # Images are mirrored, not latents: the VAE is not symmetric.
            batch = augmented(mirrored(batch, (view + i) % 2 == 1), draws)
            latents, noisy = encoded(self._encoder, batch, draws), view == VIEWS
            levels = np.array([torch.rand(1, generator=draw).item() for draw in draws])
            return self._with_noise(latents, np.where(noisy, LATEST * levels, 0.0), noisy, draws)

        count = (VIEWS + 1) * len(rows)
        return cache.rows(folder, count, make, self._at_once, "encoding", self._stage)["latents"]

    def held_out_set(self, folder: Path) -> np.ndarray:
        """Latents float16 [LEVELS * n, C, h, w]: held-out rows as predicted from each level."""
        held = self._faces.held

        @torch.no_grad()
        def make(numbers: np.ndarray) -> dict[str, np.ndarray]:
            level, i = np.divmod(numbers, len(held))
            draws = generators(self._seed + 1, numbers)
            batch = as_input(self._faces.images(held[i])).to(self._device)
            latents = encoded(self._encoder, batch, draws)
            return self._with_noise(latents, np.array(LEVELS)[level], level > 0, draws)

        count, title = len(LEVELS) * len(held), "encoding held-out images"
        return cache.rows(folder, count, make, self._at_once, title, self._stage)["latents"]

    def decoded(self, latents: np.ndarray, folder: Path) -> np.ndarray:
        """Images float16 [n, 3, H, W] of the latents."""

        def make(numbers: np.ndarray) -> dict[str, np.ndarray]:
            given = torch.from_numpy(latents[numbers]).float().to(self._device)
            return {"images": frozen.decoded(self._decoder, given).half().cpu().numpy()}

        count = len(latents)
        return cache.rows(folder, count, make, self._at_once, "decoding", self._stage)["images"]

    def _with_noise(
        self, latents: Tensor, levels: np.ndarray, noisy: np.ndarray, draws: list[torch.Generator]
    ) -> dict[str, np.ndarray]:
        """The latents, those that are `noisy` as predicted from noise of their level."""
        if noisy.any():
            chosen = [draw for draw, is_noisy in zip(draws, noisy, strict=True) if is_noisy]
            where = torch.from_numpy(noisy).to(latents.device)
            latents[where] = self._predict(latents[where], levels[noisy], chosen)
        return {"latents": latents.half().cpu().numpy()}


def disturbed(
    network: ExpressionNet, inputs: np.ndarray
) -> Callable[[np.ndarray, np.random.Generator], Tensor]:
    """The network's logits for numbers of `inputs` [n, C, S, S], moved and with a little noise."""
    device, most = frozen.place_of(network), network.config.patch * network.config.size // 16

    def logits(numbers: np.ndarray, rng: np.random.Generator) -> Tensor:
        x = shifted(torch.from_numpy(inputs[numbers]).to(device).float(), most, rng)
        return network(x + 0.1 * rng.random() * torch.randn_like(x))

    return logits


def shifted(x: Tensor, most: int, rng: np.random.Generator) -> Tensor:
    """A batch, all of it moved by the same offset of up to `most` positions; edges repeat."""
    down, right = rng.integers(0, 2 * most + 1, 2)
    padded = F.pad(x, (most,) * 4, mode="replicate")
    return padded[:, :, down : down + x.shape[2], right : right + x.shape[3]]


@torch.no_grad()
def predicted(network: ExpressionNet, inputs: np.ndarray, batch: int = 256) -> np.ndarray:
    """Logits [n, classes] of inputs [n, C, S, S]."""
    device = frozen.place_of(network)
    parts = np.array_split(inputs, -(-len(inputs) // batch))
    found = [network(torch.from_numpy(part).to(device).float()) for part in parts]
    return torch.cat(found).cpu().numpy()


def _finished(
    network: ExpressionNet,
    held: np.ndarray,
    faces: Faces,
    settings: GuideSettings,
    trained_on: int,
    out: Path,
) -> Evaluation:
    """Measure the trained guide at each noise level, and write it into `out`."""
    levels: list[dict[str, object]] = []
    lines: list[dict[str, object]] = []
    for level, inputs in zip(LEVELS, np.split(held, len(LEVELS)), strict=True):
        logits = predicted(network, inputs)
        levels.append({"level": level, **evaluation.measured(logits, faces, None)})
        lines += evaluation.lines_of(logits, faces, None, level=level)
    with cache.writing(out):
        network.save(out)
    figures = evaluation.figures_of(faces, trained_on, settings.epochs, levels=levels)
    return evaluation.write(out, figures, lines)
