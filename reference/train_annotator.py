"""Train FERAnno's head on the latents of renders; the UNet and the VAE stay as they are.

    python -m reference.train_annotator --renders DIR --checkpoint DIR --out DIR

The labels are the renders' annotations, the score is taken on identities that nothing was trained
on. The same command goes on with a training that was stopped, and with more --images it goes on
with one that was finished. The annotator is written into CHECKPOINT/annotator, where
`synfer-rt build-engines` finds it.
"""

from __future__ import annotations

import time
from pathlib import Path

import click
import numpy as np
import torch
from torch.nn import functional as F

from reference import classifiers, renders
from synfer_rt import labels
from synfer_rt.export import annotator as feranno
from synfer_rt.export.checkpoint import Checkpoint, read_checkpoint
from synfer_rt.export.modules import Conditioner, Denoiser, Encoder

SCHEME = "affectnet-8"
CHECKPOINT_SECONDS = 60.0


def load(
    checkpoint: Checkpoint, width: int
) -> tuple[feranno.FERAnno, Encoder, feranno.AnnotatorConfig]:
    """The checkpoint's UNet with an untrained head, and the encoder to its latents."""
    settings = checkpoint.settings
    conditioner = Conditioner(
        checkpoint.text_encoder, checkpoint.unet, checkpoint.adapter, settings.class_labels
    ).eval()
    denoiser = Denoiser(checkpoint.unet, conditioner.outputs, checkpoint.adapter).eval()
    config = feranno.AnnotatorConfig(
        SCHEME, feranno.prompt_of(SCHEME), width, feranno.fingerprint(checkpoint.unet)
    )
    annotator = feranno.new_annotator(checkpoint, conditioner, denoiser, config)
    return annotator, Encoder(checkpoint.vae).eval(), config


@torch.no_grad()
def encode(
    encoder: Encoder, images: torch.Tensor, generator: torch.Generator | None = None
) -> torch.Tensor:
    """Latents of images [B, 3, S, S] in [-1, 1]: a draw from the posterior, or its mean."""
    mean, logvar = encoder((images / 2 + 0.5).clamp(0, 1))
    if generator is None:
        return mean
    return mean + (logvar / 2).exp() * torch.randn(mean.shape, generator=generator)


@torch.no_grad()
def predict(
    annotator: feranno.FERAnno, encoder: Encoder, images: np.ndarray, batch: int = 64
) -> np.ndarray:
    """Class probabilities [n, classes] of uint8 images [n, S, S, 3]."""
    parts = [classifiers.as_input(images[i : i + batch]) for i in range(0, len(images), batch)]
    return torch.cat([annotator(encode(encoder, part)) for part in parts]).numpy()


@click.command()
@click.option("--renders", "directory", type=Path, required=True)
@click.option("--checkpoint", type=Path, required=True)
@click.option("--out", type=Path, required=True, help="Where the state of the training is kept.")
@click.option("--images", "total", default=40_000, help="How many renders to learn from.")
@click.option("--batch", default=16)
@click.option("--rate", default=1.5e-3, help="Peak learning rate.")
@click.option("--width", default=96, help="Width of the head's tokens.")
@click.option("--seed", default=0)
def main(directory, checkpoint, out, total, batch, rate, width, seed):
    """Train, write CHECKPOINT/annotator, print the accuracy."""
    torch.set_num_threads(1)
    torch.manual_seed(seed)
    out.mkdir(parents=True, exist_ok=True)
    source = read_checkpoint(checkpoint)
    annotator, encoder, config = load(source, width)
    annotator.eval().requires_grad_(False).head.train().requires_grad_(True)
    data = renders.load(directory, source.image_size[0])
    truth = data.annotations["label"]
    train, held = (rows[truth[rows] >= 0] for rows in (data.rows(False), data.rows(True)))
    optimizer = torch.optim.AdamW(annotator.head.parameters(), rate, weight_decay=0.05)
    seen, state_file = 0, out / "annotator-training.pt"
    if state_file.exists():
        state = torch.load(state_file, weights_only=True)
        if state["unet"] != config.unet:
            raise SystemExit(f"{state_file} is of another UNet; remove it to train for this one.")
        annotator.head.load_state_dict(state["head"])
        optimizer.load_state_dict(state["optimizer"])
        seen = state["seen"]
        click.echo(f"going on after {seen} images")
    rng = np.random.default_rng((seed, seen))
    generator = torch.Generator().manual_seed(seed + seen)
    saved, running = time.time(), 2.0

    def keep() -> None:
        state = {"head": annotator.head.state_dict(), "optimizer": optimizer.state_dict()}
        classifiers.write(state_file, state | {"seen": seen, "unet": config.unet})

    while seen < total:
        for group in optimizer.param_groups:
            group["lr"] = rate * min(1.0, (seen + batch) / 1000, 1.6 * (1 - seen / total) + 0.01)
        rows = np.sort(rng.choice(train, batch, replace=False))
        images = classifiers.as_input(data.images[rows])
        flips = torch.from_numpy(rng.random(batch) < 0.5)[:, None, None, None]
        images = classifiers.augment(torch.where(flips, images.flip(3), images), generator)
        with torch.no_grad():
            features, maps = annotator.read(encode(encoder, images, generator))
        target = torch.from_numpy(truth[rows].astype(np.int64))
        loss = F.cross_entropy(annotator.head(features, maps), target, label_smoothing=0.05)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(annotator.head.parameters(), 1.0)
        optimizer.step()
        seen += batch
        running += 0.05 * (loss.item() - running)
        if time.time() - saved > CHECKPOINT_SECONDS:
            saved = time.time()
            keep()
            click.echo(f"{seen} images, loss {running:.3f}")
    keep()
    annotator.eval()
    feranno.save_annotator(checkpoint, annotator, config)
    right = predict(annotator, encoder, data.images[held]).argmax(1) == truth[held]
    click.echo(f"held-out accuracy {right.mean():.3f} on {len(held)} renders after {seen} images")
    per_class = {c: right[truth[held] == i].mean() for i, c in enumerate(labels.scheme(SCHEME))}
    click.echo(", ".join(f"{name} {share:.2f}" for name, share in per_class.items()))


if __name__ == "__main__":
    main()
