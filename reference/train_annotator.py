"""Train FERAnno's head on the latents of renders; the UNet and the VAE stay as they are.

    python -m reference.train_annotator --renders DIR --checkpoint DIR --out DIR

It is the training of `synfer-rt train-annotator` (export/training), whose held-out images are those
of held-out identities and whose logits get no temperature. The UNet's features are kept in OUT as
float16 (160 kB a view of a 64-pixel image).

The same command resumes a run that was stopped; with more --epochs it continues a finished one.
After further training of the UNet, the former head adapts quickly (--start). FERAnno is written to
CHECKPOINT/annotator, where `synfer-rt build-engines` finds it.
"""

from __future__ import annotations

from pathlib import Path

import click
import torch

from reference import renders
from synfer_rt.errors import UserError
from synfer_rt.export.checkpoint.contents import FERANNO_FOLDER
from synfer_rt.export.checkpoint.reading import read_checkpoint
from synfer_rt.export.training import annotator
from synfer_rt.export.training.annotator import AnnotatorSettings
from synfer_rt.export.training.stages import shown
from synfer_rt.export.training.state import Place

SCHEME = "affectnet-8"


@click.command()
@click.option("--renders", "directory", type=Path, required=True)
@click.option("--checkpoint", type=Path, required=True)
@click.option("--out", type=Path, required=True, help="Where features and state are kept.")
@click.option("--images", type=int, help="Largest number of renders to train on.")
@click.option("--views", default=2, help="Augmented views of each render.")
@click.option("--epochs", default=8, help="How often the head sees every view.")
@click.option("--batch", default=64)
@click.option("--rate", default=1.5e-3, help="Peak learning rate.")
@click.option("--width", default=64, help="Width of the head's tokens.")
@click.option("--seed", default=0)
@click.option("--start", type=Path, help="FERAnno to start from, even of another model.")
def main(directory, checkpoint, out, **settings):
    """Train, write CHECKPOINT/annotator, print the accuracy."""
    torch.set_num_threads(1)
    source = read_checkpoint(checkpoint)
    faces = renders.load(directory, source.image_size[0]).faces(SCHEME)
    chosen = AnnotatorSettings(**settings, temperature=False)
    place, device = Place(checkpoint / FERANNO_FOLDER, out, out), torch.device("cpu")
    try:
        found = annotator.train(source, faces, chosen, place, device, shown, click.echo)
    except UserError as error:
        raise SystemExit(str(error)) from None
    for line in found.sentences():
        click.echo(line)


if __name__ == "__main__":
    main()
