"""Train the classifiers that guide sampling, on clean images predicted from noisy latents.

    python -m reference.train_guides --renders DIR --checkpoint DIR --out DIR [--space latent|image]

Guidance classifies x0 as the UNet predicts it from noisy latents, which is blurred. The training
set therefore holds two versions of every render: an augmented view, and such a prediction, made by
the checkpoint's own UNet from noise of a random timestep. Both are computed once and kept in OUT;
the same command resumes a run that was stopped. Labels are the renders' annotations: neither the
judge nor the labellers take part.

Writes CHECKPOINT/latent_classifier or CHECKPOINT/image_classifier and prints the accuracy on
held-out identities by noise level.
"""

from __future__ import annotations

import math
from pathlib import Path

import click
import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from reference import cache, classifiers, model, renders
from reference import tokenizer as words
from synfer_rt.export.graphs.trained_feranno import fingerprint
from synfer_rt.export.networks.guiding_classifier import (
    IMAGE_FOLDER,
    LATENT_FOLDER,
    Decoded,
    ExpressionNet,
    NetConfig,
)
from synfer_rt.vocabulary import facs

SCHEME = "affectnet-8"
CONFIGS = {
    "latent": (LATENT_FOLDER, NetConfig(4, 16, 1, (32, 64, 96), SCHEME), 44),
    "image": (IMAGE_FOLDER, NetConfig(3, 64, 2, (24, 40, 64, 96), SCHEME), 55),
}
"""Folder, architecture and seed, by space."""
LATEST = 0.7
"""Predictions are made from noise of at most this part of the schedule; guidance starts later."""
LEVELS = (0.0, 0.2, 0.4, 0.6)
"""Noise levels of the reported accuracy, as parts of the schedule; 0 is the encoded render."""
VIEWS = 1
SMOOTHING = 0.1
AT_ONCE = 64


class Source:
    """The checkpoint's VAE and UNet, which make the inputs."""

    def __init__(self, directory: Path) -> None:
        self.denoiser, self.vae = model.load(directory)
        self.denoiser.eval()
        self.vae.eval()
        self.alpha_bar = model.new_scheduler().alphas_cumprod
        self.ids = torch.tensor([words.build().encode("").ids])
        weights = self.denoiser.state_dict() | self.denoiser.adapter_state()
        self.fingerprints = fingerprint(weights), fingerprint(self.vae.state_dict())
        self._decoded = Decoded(self.vae, torch.nn.Identity())

    def encode(self, images: Tensor, generator: torch.Generator) -> Tensor:
        """Posterior samples [B, C, h, w] of images [B, 3, S, S] in [-1, 1]."""
        drawn = model.posterior(self.vae, images).sample(generator)
        return drawn * self.vae.config["scaling_factor"]

    def predict(self, latents: Tensor, level: Tensor, generator: torch.Generator) -> Tensor:
        """The clean latents that the UNet finds in `latents` after noise of `level` [B] in [0, 1).

        Its condition is empty, so that what it restores comes from the face and not from a prompt.
        """
        n = len(latents)
        times = (level * len(self.alpha_bar)).long()
        signal, noise = (
            x[times].sqrt().view(-1, 1, 1, 1) for x in (self.alpha_bar, 1 - self.alpha_bar)
        )
        noisy = signal * latents + noise * torch.randn(latents.shape, generator=generator)
        nothing = torch.zeros(n, len(facs.OPENGRAPHAU_41))
        velocity = self.denoiser(noisy, times, self.ids.expand(n, -1), nothing)
        return signal * noisy - noise * velocity

    def decode(self, latents: Tensor) -> Tensor:
        """Images [B, 3, S, S] in about [-1, 1], as a guide sees them."""
        return self._decoded(latents)


def training_set(source: Source, images: np.ndarray, rows: np.ndarray, folder: Path) -> np.ndarray:
    """Latents float16 [(VIEWS + 1) * n, C, h, w] of `rows` of uint8 `images`; predictions last."""

    @torch.no_grad()
    def make(numbers: np.ndarray) -> dict[str, np.ndarray]:
        view, i = np.divmod(numbers, len(rows))
        generator = torch.Generator().manual_seed(int(numbers[0]))
        batch = classifiers.as_input(images[rows[i]])
        # Images are mirrored, not latents: the VAE is not symmetric.
        mirrored = torch.from_numpy((view + i) % 2 == 1)
        batch = torch.where(mirrored[:, None, None, None], batch.flip(3), batch)
        latents = source.encode(classifiers.augment(batch, generator), generator)
        noisy = torch.from_numpy(view == VIEWS)
        if noisy.any():
            level = LATEST * torch.rand(int(noisy.sum()), generator=generator)
            latents[noisy] = source.predict(latents[noisy], level, generator)
        return {"latents": latents.half().numpy()}

    return cache.rows(folder, (VIEWS + 1) * len(rows), make, AT_ONCE, "encoding")["latents"]


def held_out_set(source: Source, images: np.ndarray, rows: np.ndarray, folder: Path) -> np.ndarray:
    """Latents float16 [LEVELS * n, C, h, w]: `rows` as predicted from noise of each level."""

    @torch.no_grad()
    def make(numbers: np.ndarray) -> dict[str, np.ndarray]:
        level, i = np.divmod(numbers, len(rows))
        generator = torch.Generator().manual_seed(int(numbers[0]))
        latents = source.encode(classifiers.as_input(images[rows[i]]), generator)
        noisy = torch.from_numpy(level > 0)
        if noisy.any():
            levels = torch.tensor(LEVELS)[torch.from_numpy(level)][noisy]
            latents[noisy] = source.predict(latents[noisy], levels, generator)
        return {"latents": latents.half().numpy()}

    return cache.rows(folder, len(LEVELS) * len(rows), make, AT_ONCE, "held out")["latents"]


def decoded(source: Source, latents: np.ndarray, folder: Path) -> np.ndarray:
    """Images float16 [n, 3, S, S] of the latents."""

    @torch.no_grad()
    def make(numbers: np.ndarray) -> dict[str, np.ndarray]:
        images = source.decode(torch.from_numpy(latents[numbers]).float())
        return {"images": images.half().numpy()}

    return cache.rows(folder, len(latents), make, AT_ONCE, "decoding")["images"]


def shifted(x: Tensor, most: int, rng: np.random.Generator) -> Tensor:
    """A batch, all of it moved by the same offset of up to `most` positions; edges repeat."""
    down, right = rng.integers(0, 2 * most + 1, 2)
    padded = F.pad(x, (most,) * 4, mode="replicate")
    return padded[:, :, down : down + x.shape[2], right : right + x.shape[3]]


def train(
    x: np.ndarray, y: np.ndarray, config: NetConfig, seed: int, epochs: int, batch: int, out: Path
) -> ExpressionNet:
    """An ExpressionNet trained on inputs `x` and class indices `y`.

    `out` is the file of the training's state, from which it resumes.
    """
    torch.manual_seed(seed)
    network = ExpressionNet(config)
    optimizer = torch.optim.AdamW(network.parameters(), 2e-3, weight_decay=0.05)
    done, steps = 0, -(-len(x) // batch)
    if out.exists():
        state = torch.load(out, weights_only=True)
        network.load_state_dict(state["network"])
        optimizer.load_state_dict(state["optimizer"])
        done = state["epochs"]
        click.echo(f"resuming after {done} epochs")
    most = config.patch * config.size // 16
    for epoch in range(done, epochs):
        rng, total = np.random.default_rng((seed, epoch)), 0.0
        torch.manual_seed(seed + epoch)
        for i, rows in enumerate(np.array_split(rng.permutation(len(x)), steps)):
            progress = (epoch * steps + i) / (epochs * steps)
            for group in optimizer.param_groups:
                warm = min(1.0, (epoch * steps + i + 1) / 100)
                group["lr"] = 2e-3 * warm * (0.505 + 0.495 * math.cos(math.pi * progress))
            inputs = shifted(torch.from_numpy(x[rows]).float(), most, rng)
            inputs = inputs + 0.1 * rng.random() * torch.randn_like(inputs)
            target = torch.from_numpy(y[rows])
            loss = F.cross_entropy(network(inputs), target, label_smoothing=SMOOTHING)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            total += loss.item() * len(rows)
        state = {"network": network.state_dict(), "optimizer": optimizer.state_dict()}
        classifiers.write(out, state | {"epochs": epoch + 1})
        click.echo(f"epoch {epoch + 1}: loss {total / len(x):.3f}")
    return network.eval()


@torch.no_grad()
def accuracy(network: ExpressionNet, x: np.ndarray, y: np.ndarray) -> float:
    """Share of inputs whose likeliest class is the true one."""
    parts = np.array_split(x, -(-len(x) // 256))
    found = torch.cat([network(torch.from_numpy(part).float()).argmax(1) for part in parts])
    return float((found.numpy() == y).mean())


@click.command()
@click.option("--renders", "directory", type=Path, required=True)
@click.option("--checkpoint", type=Path, required=True, help="Its VAE and UNet make the inputs.")
@click.option("--out", type=Path, required=True, help="Where inputs and state are kept.")
@click.option("--space", type=click.Choice(list(CONFIGS)), default="latent", show_default=True)
@click.option("--faces", type=int, help="Largest number of renders to train on.")
@click.option("--epochs", default=4, show_default=True)
@click.option("--batch", default=64, show_default=True)
def main(directory, checkpoint, out, space, faces, epochs, batch):
    """Train one guiding classifier and print its accuracy on held-out identities."""
    torch.set_num_threads(1)
    folder, config, seed = CONFIGS[space]
    data = renders.load(directory, 64)
    truth = data.annotations["label"].astype(np.int64)
    rows = {held: data.rows(held)[truth[data.rows(held)] >= 0] for held in (False, True)}
    rows[False] = np.random.default_rng(0).permutation(rows[False])[:faces]
    source = Source(checkpoint)
    key = cache.key(*source.fingerprints, data.key, len(rows[False]), LATEST, LEVELS, VIEWS)
    sets = {
        False: training_set(source, data.images, rows[False], out / f"latents-{key}"),
        True: held_out_set(source, data.images, rows[True], out / f"held-out-{key}"),
    }
    if space == "image":
        sets = {
            held: decoded(source, latents, out / f"decoded-{key}{'-held-out' * held}")
            for held, latents in sets.items()
        }
    state = out / f"{space}-{key}-training.pt"
    y = np.tile(truth[rows[False]], VIEWS + 1)
    network = train(sets[False], y, config, seed, epochs, batch, state)
    network.save(checkpoint / folder)
    for level, x in zip(LEVELS, np.split(sets[True], len(LEVELS)), strict=True):
        click.echo(
            f"{space} guide, {len(x)} held-out renders, noise of {level:.2f} of the schedule: "
            f"accuracy {accuracy(network, x, truth[rows[True]]):.3f}"
        )


if __name__ == "__main__":
    main()
