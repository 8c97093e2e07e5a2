"""`synfer-rt train-annotator` and `synfer-rt train-guide`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from synfer_rt.commands import options
from synfer_rt.commands.interruption import going_on
from synfer_rt.commands.notes import note
from synfer_rt.errors import UserError, installing

if TYPE_CHECKING:
    from synfer_rt.export.training.evaluation import Evaluation

_RESUME = "Interrupted; what is finished is kept: run the same command to go on."


def _material(out: str) -> options.Decorator:
    """What a network is trained from, and where it goes, by default `out` in CHECKPOINT."""
    return options.together(
        click.argument("checkpoint", type=options.LocalPath()),
        click.option(
            "--data",
            type=options.LocalPath(),
            multiple=True,
            required=True,
            metavar="DATASET",
            help="Labelled images: a folder, table or archive that `label` reads; may be repeated.",
        ),
        click.option(
            "--out",
            type=options.LocalPath(),
            metavar="DIR",
            help=f"Where the network is written.  [default: CHECKPOINT/{out}]",
        ),
        click.option(
            "--work",
            type=options.LocalPath(),
            metavar="DIR",
            help="Where what the UNet computes is kept, gigabytes of it; several trainings may "
            "share it.  [default: __OUT__ beside --out, which also holds the training's state]",
        ),
        click.option(
            "--au-adapter",
            type=options.LocalPath(),
            help="AU adapter, as for build-engines.  [default: that of CHECKPOINT]",
        ),
        click.option(
            "--lora",
            multiple=True,
            metavar="FILE[:SCALE]",
            help="LoRA to merge, as for build-engines; may be repeated.",
        ),
        click.option(
            "--classes",
            metavar="SCHEME",
            help="What the network tells apart: raf-db, for example, or expressions with commas.  "
            "[default: the label scheme of CHECKPOINT]",
        ),
        options.reading("--format"),
        click.option(
            "--held-out",
            type=click.Choice(["auto", "val", "test", "persons", "images"]),
            default="auto",
            show_default=True,
            help="What is measured on: the dataset's own split, or a tenth, of whole persons or of "
            "images. auto: val, else persons, else images, by what the dataset has.",
        ),
    )


def _training(epochs: int, rate: float) -> options.Decorator:
    """How a network is trained."""
    return options.together(
        click.option("--images", type=int, metavar="N", help="Train on N images.  [default: all]"),
        click.option("--epochs", default=epochs, show_default=True),
        click.option("--batch", default=64, show_default=True, help="Images in a step."),
        click.option("--rate", default=rate, show_default=True, help="Peak of the learning rate."),
        click.option("--seed", default=0, show_default=True),
        click.option(
            "--device",
            default="auto",
            show_default=True,
            help="cpu, cuda, cuda:1, …; auto takes a GPU if there is one.",
        ),
    )


@click.command("train-annotator")
@_material("annotator")
@_training(epochs=8, rate=1.5e-3)
@click.option("--views", default=2, show_default=True, help="Augmented views of each image.")
@click.option("--width", default=64, show_default=True, help="Width of the head's tokens.")
@click.option(
    "--temperature/--no-temperature",
    default=True,
    show_default=True,
    help="Divide the logits by the temperature that fits half of the held-out images.",
)
@click.option(
    "--start",
    type=options.LocalPath(),
    metavar="DIR",
    help="Begin from the head in DIR, even of another model.",
)
def train_annotator(checkpoint: Path, data: tuple[Path, ...], **settings: Any) -> None:
    """Train FERAnno, the annotator that reads latents, for CHECKPOINT on your labelled images.

    `build-engines CHECKPOINT` then makes an engine of it, and the bundle labels with it. Accuracy
    and calibration on held-out images are printed and written beside the weights. The same command
    goes on with a training that was stopped, and with more --epochs a finished one.
    """
    try:
        from synfer_rt.export.training import api
    except ImportError as error:
        raise _missing("train-annotator", error) from error
    _run(api.train_annotator, checkpoint, data, **settings)


@click.command("train-guide")
@_material("latent_classifier")
@_training(epochs=4, rate=2e-3)
@click.option(
    "--space",
    type=click.Choice(["latent", "image"]),
    default="latent",
    show_default=True,
    help="What it classifies. image is for the form `text`, in CHECKPOINT/image_classifier.",
)
def train_guide(checkpoint: Path, data: tuple[Path, ...], **settings: Any) -> None:
    """Train a classifier that guides sampling with CHECKPOINT, on your labelled images.

    `build-engines CHECKPOINT` then makes engines of it, for `sample --semantic-guidance`. The
    accuracy on held-out images at several noise levels is printed and written beside the weights.
    The same command goes on with a training that was stopped.
    """
    try:
        from synfer_rt.export.training import api
    except ImportError as error:
        raise _missing("train-guide", error) from error
    _run(api.train_guide, checkpoint, data, **settings)


def _missing(command: str, error: ImportError) -> UserError:
    return UserError(f"{command} needs {error.name}; {installing('export')}.")


def _run(
    train: Callable[..., Evaluation], checkpoint: Path, data: tuple[Path, ...], **settings: Any
) -> None:
    from synfer_rt.export.training.stages import shown

    with going_on(lambda: _RESUME):
        found = train(checkpoint, data, stage=shown, remark=note, **settings)
    for line in found.sentences():
        click.echo(line)
    click.echo(f"The network is in {found.folder}, with its figures in evaluation.json.")
