"""Train the classifiers that guide sampling, on clean images predicted from noisy latents.

    python -m reference.train_guides --renders DIR --checkpoint DIR --out DIR [--space latent|image]

It is the training of `synfer-rt train-guide` (export/training), whose held-out images are those of
held-out identities. Labels are the renders' annotations: neither the judge nor the labellers take
part. Inputs and state are kept in OUT; the same command resumes a run that was stopped.

Writes CHECKPOINT/latent_classifier or CHECKPOINT/image_classifier and prints the accuracy on
held-out identities by noise level.
"""

from __future__ import annotations

from pathlib import Path

import click
import torch

from reference import renders
from synfer_rt.errors import UserError
from synfer_rt.export.checkpoint.reading import read_checkpoint
from synfer_rt.export.networks.guiding_classifier import IMAGE_FOLDER, LATENT_FOLDER
from synfer_rt.export.training import guide
from synfer_rt.export.training.guide import GuideSettings
from synfer_rt.export.training.stages import shown
from synfer_rt.export.training.state import Place

SCHEME = "affectnet-8"
SPACES = {"latent": (LATENT_FOLDER, 44), "image": (IMAGE_FOLDER, 55)}
"""Folder and seed, by space."""


@click.command()
@click.option("--renders", "directory", type=Path, required=True)
@click.option("--checkpoint", type=Path, required=True, help="Its VAE and UNet make the inputs.")
@click.option("--out", type=Path, required=True, help="Where inputs and state are kept.")
@click.option("--space", type=click.Choice(list(SPACES)), default="latent", show_default=True)
@click.option("--faces", "images", type=int, help="Largest number of renders to train on.")
@click.option("--epochs", default=4, show_default=True)
@click.option("--batch", default=64, show_default=True)
def main(directory, checkpoint, out, space, **settings):
    """Train one guiding classifier and print its accuracy on held-out identities."""
    torch.set_num_threads(1)
    folder, seed = SPACES[space]
    source = read_checkpoint(checkpoint)
    faces = renders.load(directory, source.image_size[0]).faces(SCHEME)
    chosen = GuideSettings(space=space, seed=seed, **settings)
    place, device = Place(checkpoint / folder, out / space, out), torch.device("cpu")
    try:
        found = guide.train(source, faces, chosen, place, device, shown, click.echo)
    except UserError as error:
        raise SystemExit(str(error)) from None
    for line in found.sentences():
        click.echo(line)


if __name__ == "__main__":
    main()
