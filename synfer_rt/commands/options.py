"""The options that commands share."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from synfer_rt.data.storage.addresses import address_of
from synfer_rt.errors import UserError
from synfer_rt.paths import local

Decorator = Callable[[Callable[..., Any]], Callable[..., Any]]


class LocalPath(click.Path):
    """A path on this machine. Addresses such as s3://… are refused, naming the parameter."""

    def __init__(self) -> None:
        super().__init__(path_type=Path)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Path:
        """The Path that a text names."""
        try:
            return local(super().convert(value, param, ctx))
        except UserError as error:
            name = "" if param is None else f"{param.opts[0]} "
            raise UserError(f"{name if name.startswith('-') else ''}{error}") from None


class Output(LocalPath):
    """A path on this machine, or an address in an object store such as s3://bucket/faces."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """The Path that a text names, or the address as text."""
        address = address_of(value)
        return super().convert(value, param, ctx) if address is None else str(address)


bundle = click.option(
    "--bundle",
    type=LocalPath(),
    metavar="DIR",
    help="Directory of the bundle of engines.  [default: the one that ships with synfer-rt]",
)
seed = click.option(
    "--seed", default=0, show_default=True, help="The same seed makes the same images."
)


def together(*options: Decorator) -> Decorator:
    """Several options as one decorator; `--help` lists them in this order."""

    def decorate(command: Callable[..., Any]) -> Callable[..., Any]:
        for option in reversed(options):
            command = option(command)
        return command

    return decorate


written_format = together(
    click.option(
        "--format",
        type=click.Choice(["imagefolder", "webdataset", "parquet"]),
        default="imagefolder",
        show_default=True,
    ),
    click.option(
        "--shard-size",
        default=10_000,
        show_default=True,
        help="Images in a shard: a file of webdataset or parquet, or what a part makes at once.",
    ),
    click.option(
        "--image-format",
        type=click.Choice(["png", "jpeg", "webp"]),
        default="png",
        show_default=True,
        help="How images are written: png keeps every pixel, jpeg and webp are smaller.",
    ),
    click.option(
        "--image-quality",
        type=int,
        metavar="1…100",
        help="Quality of jpeg and webp.  [default: 95]",
    ),
)
"""How a dataset is written."""

running = together(
    click.option("--backend", default="auto", show_default=True, help="See synfer-rt doctor."),
    click.option("--threads", type=int, help="CPU threads of the engines.  [default: all cores]"),
)
"""Where engines run."""

resuming = together(
    click.option(
        "--resume", is_flag=True, help="Continue the run in --out, on the backend that began it."
    ),
    click.option(
        "--mix-backends",
        is_flag=True,
        help="Let --resume continue on another backend, precision or version.",
    ),
)
"""Going on with a run."""

accepting = together(
    click.option(
        "--accept-rate", type=float, help="Accept the most confident part of each class, 0 to 1."
    ),
    click.option(
        "--threshold",
        type=float,
        help="Accept from this confidence on, 0 to 1.  [default: where the vote and most "
        "annotators see the wanted label]",
    ),
)
"""Which labels are accepted."""


calibrating = together(
    click.option(
        "--calibration",
        type=LocalPath(),
        metavar="FILE",
        help="Calibrate the probabilities and add label sets, by a file of synfer-rt calibrate.",
    ),
    click.option(
        "--coverage",
        type=float,
        help="How often a label set holds the true class, in each class: 0 to 1.  [default: 0.9]",
    ),
)
"""Calibrated probabilities and label sets."""

aligning = together(
    click.option("--align", is_flag=True, help="Find the face in each image, and align it."),
    click.option(
        "--face",
        type=click.Choice(["largest", "centre", "only"]),
        help="Which of several faces; only: leave such images out.  [default: largest]",
    ),
    click.option(
        "--face-detector",
        type=LocalPath(),
        metavar="FILE",
        help="An ONNX file of YuNet.  [default: that of the extra align]",
    ),
)
"""Faces found and aligned."""


def batch(default: int, done: str) -> Decorator:
    """`--batch`, how many images are `done` at once."""
    return click.option("--batch", default=default, show_default=True, help=f"Images {done}.")


def reading(option: str) -> Decorator:
    """How a dataset is read: its format, as `option`, its labels, and where its faces lie."""
    from synfer_rt.data.datasets import FORMATS

    return together(
        click.option(
            option,
            type=click.Choice(["auto", *FORMATS]),
            default="auto",
            show_default=True,
            help="Format of the dataset.",
        ),
        click.option(
            "--label-scheme",
            metavar="SCHEME|FILE",
            help="What label numbers mean: raf-db, for example, the classes from 0 with commas, or "
            "a scheme file (.yaml, .json).",
        ),
        click.option("--split", help="Only this part: train, val or test."),
        aligning,
    )


def judged_images() -> Decorator:
    """How the images are read that the annotators of a bundle judge, and where these run."""
    return together(reading("--format"), bundle, batch(64, "judged at once"), running)


def features(used: str) -> Decorator:
    """`--features`, a network whose features are `used`."""
    return click.option(
        "--features",
        type=(str, str),
        metavar="FILE[:OUTPUT] SPEC",
        help=f"ONNX network whose features are {used}, and its input, such as "
        "224,rgb,imagenet,bicubic; OUTPUT is any value of its graph.  [default: the bundle's AU "
        "reader, before its scores]",
    )


networks = together(
    click.option(
        "--backend",
        type=click.Choice(["onnxruntime-cpu", "onnxruntime-cuda"]),
        default="onnxruntime-cpu",
        show_default=True,
    ),
    click.option("--threads", type=int, help="CPU threads of the networks.  [default: all cores]"),
)
"""Where networks run that are no engines of a bundle."""
