"""Train the classifiers that guide sampling, on clean images as a half-done sample predicts them.

    python -m reference.train_guides --renders DIR --checkpoint DIR [--space latent|image]

Writes CHECKPOINT/latent_classifier or CHECKPOINT/image_classifier. Guidance asks for the label of
x0 as the UNet predicts it from noisy latents, which is blurred and smeared; so half of the training
set are such predictions, made from renders by the checkpoint's own UNet at random timesteps. Labels
are the renders' annotations: nothing here has seen the judge or the labeller.
"""

from __future__ import annotations

import time
from pathlib import Path

import click
import numpy as np
import torch
from rich.progress import track
from torch import Tensor
from torch.nn import functional as F

from reference import model, renders
from reference import tokenizer as words
from reference.classifiers import as_input
from synfer_rt import facs, labels
from synfer_rt.export.guiding_classifier import (
    IMAGE_FOLDER,
    LATENT_FOLDER,
    Decoded,
    ExpressionNet,
    NetConfig,
)

SCHEME = "affectnet-8"
CONFIGS = {
    "latent": (LATENT_FOLDER, NetConfig(4, 16, 1, (48, 64, 96), SCHEME), 44),
    "image": (IMAGE_FOLDER, NetConfig(3, 64, 2, (24, 40, 64, 96), SCHEME), 55),
}
"""Folder, shape and seed of each."""
LATEST = 0.85
"""Predictions are made from noise of at most this part of the schedule; later there is no face."""
SMOOTHING = 0.1
AT_ONCE = 64


@torch.no_grad()
def encode(vae, images_u8: np.ndarray, generator: torch.Generator) -> Tensor:
    """Posterior samples float32 [N, C, h, w] of uint8 images [N, S, S, 3]."""
    parts = []
    for i in track(range(0, len(images_u8), AT_ONCE), "encoding"):
        posterior = vae.encode(as_input(images_u8[i : i + AT_ONCE])).latent_dist
        parts.append(posterior.sample(generator) * vae.config.scaling_factor)
    return torch.cat(parts)


@torch.no_grad()
def predictions(denoiser, latents: Tensor, generator: torch.Generator) -> Tensor:
    """The clean latents that the UNet finds in `latents` after noise of a random timestep.

    Its condition is empty, so that what it restores comes from the face and not from a prompt.
    """
    alpha_bar = model.new_scheduler().alphas_cumprod
    ids = torch.tensor([words.build().encode("").ids])
    parts = []
    for part in track(latents.split(AT_ONCE), "predicting"):
        n = len(part)
        times = (torch.rand(n, generator=generator) * LATEST * len(alpha_bar)).long()
        signal, noise = (x[times].sqrt().view(-1, 1, 1, 1) for x in (alpha_bar, 1 - alpha_bar))
        noisy = signal * part + noise * torch.randn(part.shape, generator=generator)
        nothing = torch.zeros(n, len(facs.OPENGRAPHAU_41))
        velocity = denoiser(noisy, times, ids.expand(n, -1), nothing)
        parts.append(signal * noisy - noise * velocity)
    return torch.cat(parts)


@torch.no_grad()
def decode(vae, latents: Tensor) -> Tensor:
    """Images float32 [N, 3, S, S] in about [-1, 1], as a guide sees them."""
    decoded = Decoded(vae, torch.nn.Identity())
    return torch.cat([decoded(part) for part in track(latents.split(AT_ONCE), "decoding")])


def shifted(x: Tensor, most: int, rng: np.random.Generator) -> Tensor:
    """A batch mirrored or not and moved by up to `most` positions, as one; edges repeat."""
    down, right = rng.integers(0, 2 * most + 1, 2)
    x = x.flip(3) if rng.random() < 0.5 else x
    padded = F.pad(x, (most,) * 4, mode="replicate")
    return padded[:, :, down : down + x.shape[2], right : right + x.shape[3]]


def train(
    x: Tensor, y: Tensor, config: NetConfig, seed: int, minutes: float, batch: int
) -> ExpressionNet:
    """An ExpressionNet trained on inputs `x` and class indices `y` for some minutes."""
    torch.manual_seed(seed)
    network, rng = ExpressionNet(config), np.random.default_rng(seed)
    optimizer = torch.optim.AdamW(network.parameters(), 2e-3, weight_decay=0.05)
    most = config.patch * config.size // 16
    started = time.time()
    while (progress := (time.time() - started) / (60 * minutes)) < 1:
        for group in optimizer.param_groups:
            group["lr"] = 2e-3 * min(1.0, 20 * progress + 0.02, 1.5 * (1 - progress) + 0.01)
        rows = torch.from_numpy(rng.integers(0, len(x), batch))
        inputs = shifted(x[rows], most, rng)
        inputs = inputs + 0.1 * rng.random() * torch.randn_like(inputs)
        loss = F.cross_entropy(network(inputs), y[rows], label_smoothing=SMOOTHING)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return network.eval()


@torch.no_grad()
def accuracy(network: ExpressionNet, x: Tensor, y: Tensor) -> float:
    """Share of inputs whose likeliest class is the true one."""
    found = torch.cat([network(part).argmax(1) for part in x.split(256)])
    return float((found == y).float().mean())


@click.command()
@click.option("--renders", "directory", type=Path, required=True)
@click.option("--checkpoint", type=Path, required=True, help="Its VAE and UNet make the inputs.")
@click.option("--space", type=click.Choice(list(CONFIGS)), default="latent", show_default=True)
@click.option("--faces", default=12000, show_default=True, help="Renders to train on, at most.")
@click.option("--minutes", default=4.0, show_default=True)
@click.option("--batch", default=64, show_default=True)
@click.option("--out", type=Path, help="Default: the checkpoint's own folder for it.")
def main(directory, checkpoint, space, faces, minutes, batch, out):
    """Train one guiding classifier and print how it does on held-out identities."""
    torch.set_num_threads(1)
    folder, config, seed = CONFIGS[space]
    data = renders.load(directory, 64)
    truth = data.annotations["label"].astype(np.int64)
    rng = np.random.default_rng(seed)
    denoiser, vae = model.load(checkpoint)
    denoiser.eval(), vae.eval()
    generator = torch.Generator().manual_seed(seed)
    sets = {}
    for held_out, most in ((False, faces), (True, 1000)):
        rows = data.rows(held_out)
        rows = rows[truth[rows] >= 0]
        rows = np.sort(rng.choice(rows, min(most, len(rows)), replace=False))
        clean = encode(vae, data.images[rows], generator)
        pair = [clean, predictions(denoiser, clean, generator)]
        if space == "image":
            pair = [decode(vae, latents) for latents in pair]
        sets[held_out] = (*pair, torch.from_numpy(truth[rows]))
    clean, predicted, y = sets[False]
    network = train(torch.cat([clean, predicted]), y.repeat(2), config, seed, minutes, batch)
    network.save(out or checkpoint / folder)
    clean, predicted, y = sets[True]
    click.echo(
        f"{space} guide, {len(labels.scheme(SCHEME))} classes, held-out identities: "
        f"{accuracy(network, clean, y):.3f} on encoded renders, "
        f"{accuracy(network, predicted, y):.3f} on predictions from noise"
    )


if __name__ == "__main__":
    main()
