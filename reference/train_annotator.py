"""Train FERAnno's head on the latents of renders; the UNet and the VAE stay as they are.

    python -m reference.train_annotator --renders DIR --checkpoint DIR --out DIR

Every render goes through the VAE and the UNet once for each of `--views` random augmentations. The
UNet's features are kept in OUT as float16 (160 kB a view of a 64-pixel image), and the head trains
on them for many epochs. The labels are the renders' annotations; the accuracy is measured on
held-out identities.

The same command resumes a run that was stopped; with more --epochs it continues a finished one.
After further training of the UNet, the former head adapts quickly (--start). FERAnno is written to
CHECKPOINT/annotator, where `synfer-rt build-engines` finds it.
"""

from __future__ import annotations

import math
from functools import partial
from pathlib import Path

import click
import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor
from torch.nn import functional as F

from reference import cache, classifiers, renders
from synfer_rt.export.checkpoint.contents import Checkpoint
from synfer_rt.export.checkpoint.reading import read_checkpoint
from synfer_rt.export.graphs import trained_feranno as feranno
from synfer_rt.export.networks.feranno import FERAnno
from synfer_rt.export.networks.modules import Conditioner, Denoiser, Encoder
from synfer_rt.vocabulary import label_schemes

SCHEME = "affectnet-8"
AT_ONCE = 32
"""Images that go through the UNet together."""


def load(checkpoint: Checkpoint, width: int) -> tuple[FERAnno, Encoder, feranno.FERAnnoConfig]:
    """The checkpoint's UNet with an untrained head, and the encoder to its latents."""
    settings = checkpoint.settings
    conditioner = Conditioner(
        checkpoint.text_encoder, checkpoint.unet, checkpoint.adapter, settings.class_labels
    ).eval()
    denoiser = Denoiser(checkpoint.unet, conditioner.outputs, checkpoint.adapter).eval()
    config = feranno.FERAnnoConfig(
        SCHEME, feranno.prompt_of(SCHEME), width, feranno.model_fingerprint(checkpoint)
    )
    annotator = feranno.new_feranno(checkpoint, conditioner, denoiser, config)
    return annotator, Encoder(checkpoint.vae).eval(), config


@torch.no_grad()
def encode(encoder: Encoder, images: Tensor, generator: torch.Generator | None = None) -> Tensor:
    """Latents of images [B, 3, S, S] in [-1, 1]: a draw from the posterior, or its mean."""
    mean, logvar = encoder((images / 2 + 0.5).clamp(0, 1))
    if generator is None:
        return mean
    return mean + (logvar / 2).exp() * torch.randn(mean.shape, generator=generator)


@torch.no_grad()
def predict(
    annotator: FERAnno, encoder: Encoder, images: np.ndarray, batch: int = 64
) -> np.ndarray:
    """Class probabilities [n, classes] of uint8 images [n, S, S, 3]."""
    parts = [classifiers.as_input(images[i : i + batch]) for i in range(0, len(images), batch)]
    return torch.cat([annotator(encode(encoder, part)) for part in parts]).numpy()


class Readings:
    """The UNet's features and maps of images, computed once and kept on disk.

    Number v * N + i is view v of image i of the N `rows` of uint8 `images`; a view has a folder of
    its own below `folder`. View v is augmented v + 1 times, so that the second is as poor as
    photographs from elsewhere. Images are mirrored alternately, so that two views hold both sides
    of a face.
    """

    def __init__(
        self,
        folder: Path,
        annotator: FERAnno,
        encoder: Encoder,
        images: np.ndarray,
        rows: np.ndarray,
        views: int,
    ) -> None:
        with torch.no_grad():
            parts = annotator.read(torch.zeros(1, *annotator.latent))
        self._shapes = [[tuple(x.shape[1:]) for x in part] for part in parts]
        self._images = len(rows)

        @torch.no_grad()
        def read(view: int, numbers: np.ndarray) -> dict[str, np.ndarray]:
            batch = classifiers.as_input(images[rows[numbers]])
            mirrored = torch.from_numpy((view + numbers) % 2 == 1)
            batch = torch.where(mirrored[:, None, None, None], batch.flip(3), batch)
            generator = torch.Generator().manual_seed(view * len(rows) + int(numbers[0]))
            for _ in range(view + 1):
                batch = classifiers.augment(batch, generator)
            latents = encode(encoder, batch, generator)
            features, maps = annotator.read(latents)
            values = torch.cat([x.flatten(1) for x in (*features, *maps)], 1)
            return {"values": values.half().numpy()}

        self._views = [
            cache.rows(
                folder / f"view-{v}", len(rows), partial(read, v), AT_ONCE, f"reading, view {v}"
            )["values"]
            for v in range(views)
        ]

    def __len__(self) -> int:
        return len(self._views) * self._images

    def __getitem__(self, numbers: np.ndarray) -> tuple[list[Tensor], list[Tensor]]:
        """Features and maps of these numbers, float32."""
        chosen = [self._views[n // self._images][n % self._images] for n in numbers]
        values, begin = torch.from_numpy(np.stack(chosen)).float(), 0
        kinds: list[list[Tensor]] = []
        for shapes in self._shapes:
            kinds.append([])
            for shape in shapes:
                end = begin + math.prod(shape)
                kinds[-1].append(values[:, begin:end].unflatten(1, shape))
                begin = end
        return kinds[0], kinds[1]


@click.command()
@click.option("--renders", "directory", type=Path, required=True)
@click.option("--checkpoint", type=Path, required=True)
@click.option("--out", type=Path, required=True, help="Where features and state are kept.")
@click.option("--images", "most", type=int, help="Largest number of renders to train on.")
@click.option("--views", default=2, help="Augmented views of each render.")
@click.option("--epochs", default=8, help="How often the head sees every view.")
@click.option("--batch", default=64)
@click.option("--rate", default=1.5e-3, help="Peak learning rate.")
@click.option("--width", default=64, help="Width of the head's tokens.")
@click.option("--seed", default=0)
@click.option("--start", type=Path, help="FERAnno to start from, even of another model.")
def main(directory, checkpoint, out, most, views, epochs, batch, rate, width, seed, start):
    """Train, write CHECKPOINT/annotator, print the accuracy."""
    torch.set_num_threads(1)
    torch.manual_seed(seed)
    out.mkdir(parents=True, exist_ok=True)
    source = read_checkpoint(checkpoint)
    annotator, encoder, config = load(source, width)
    annotator.eval().requires_grad_(False).head.requires_grad_(True)
    if start is not None:
        annotator.head.load_state_dict(load_file(start / "model.safetensors"))
    data = renders.load(directory, source.image_size[0])
    truth = data.annotations["label"].astype(np.int64)
    train, held = (rows[truth[rows] >= 0] for rows in (data.rows(False), data.rows(True)))
    train = np.random.default_rng(seed).permutation(train)[:most]
    vae = feranno.fingerprint(source.vae.state_dict())
    key = cache.key(config.model, vae, config.prompt, data.key, len(train), seed)
    readings = Readings(out / f"readings-{key}", annotator, encoder, data.images, train, views)

    optimizer = torch.optim.AdamW(annotator.head.parameters(), rate, weight_decay=0.05)
    done, state_file = 0, out / "annotator-training.pt"
    if state_file.exists():
        state = torch.load(state_file, weights_only=True)
        if state["key"] != key:
            raise SystemExit(f"{state_file} is of another training; remove it to start this one.")
        annotator.head.load_state_dict(state["head"])
        optimizer.load_state_dict(state["optimizer"])
        done = state["epochs"]
        click.echo(f"resuming after {done} epochs")
    steps = -(-len(readings) // batch)
    for epoch in range(done, epochs):
        annotator.head.train()
        torch.manual_seed(seed + epoch)
        order, total = np.random.default_rng((seed, epoch)).permutation(len(readings)), 0.0
        for i, numbers in enumerate(np.array_split(order, steps)):
            progress = (epoch * steps + i) / (epochs * steps)
            for group in optimizer.param_groups:
                warm = min(1.0, (epoch * steps + i + 1) / 100)
                group["lr"] = rate * warm * (0.505 + 0.495 * math.cos(math.pi * progress))
            target = torch.from_numpy(truth[train[numbers % len(train)]])
            logits = annotator.head(*readings[numbers])
            loss = F.cross_entropy(logits, target, label_smoothing=0.05)
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(annotator.head.parameters(), 1.0)
            optimizer.step()
            total += loss.item() * len(numbers)
        state = {"head": annotator.head.state_dict(), "optimizer": optimizer.state_dict()}
        classifiers.write(state_file, state | {"epochs": epoch + 1, "key": key})
        click.echo(f"epoch {epoch + 1}: loss {total / len(readings):.3f}")
    annotator.eval()
    feranno.save_feranno(checkpoint, annotator, config)
    right = predict(annotator, encoder, data.images[held]).argmax(1) == truth[held]
    click.echo(f"held-out accuracy {right.mean():.3f} on {len(held)} renders")
    per_class = {
        c: right[truth[held] == i].mean() for i, c in enumerate(label_schemes.scheme(SCHEME))
    }
    click.echo(", ".join(f"{name} {share:.2f}" for name, share in per_class.items()))


if __name__ == "__main__":
    main()
