"""`synfer-rt build-engines`: the command of the build side."""

from __future__ import annotations

import math
from pathlib import Path

import click

from synfer_rt.errors import UserError


@click.command("build-engines")
@click.argument("checkpoint", type=click.Path(path_type=Path))
@click.option(
    "--out", type=click.Path(path_type=Path), required=True, help="Directory of the bundle."
)
@click.option(
    "--au-adapter",
    type=click.Path(path_type=Path),
    help="AU adapter in SynFER's layout.  [default: CHECKPOINT/au_adapter.safetensors]",
)
@click.option(
    "--classifier",
    "classifiers",
    type=click.Path(path_type=Path),
    multiple=True,
    help="ONNX expression classifier; may be repeated.  [default: CHECKPOINT/classifiers/*.onnx]",
)
@click.option(
    "--classifier-labels",
    "schemes",
    multiple=True,
    metavar="SCHEME",
    help="Label scheme of each --classifier, in their order.",
)
@click.option(
    "--classifier-input",
    "specs",
    multiple=True,
    metavar="SPEC",
    help="Input of each --classifier: 64,grey or 224,rgb,imagenet or "
    "64,rgb,mean=0.5/0.5/0.5,std=0.5/0.5/0.5; add `probabilities` where no softmax is missing.",
)
@click.option(
    "--precision",
    type=click.Choice(["fp32", "fp16"]),
    default="fp32",
    show_default=True,
    help="How weights are stored.",
)
@click.option(
    "--tolerance",
    type=float,
    help="Largest error against PyTorch, relative to each output's largest value.  "
    "[default: 1e-4 for fp32, 2e-2 for fp16]",
)
@click.option("--force", is_flag=True, help="Replace the bundle that is at --out.")
def build_engines(
    checkpoint: Path,
    out: Path,
    au_adapter: Path | None,
    classifiers: tuple[Path, ...],
    schemes: tuple[str, ...],
    specs: tuple[str, ...],
    precision: str,
    tolerance: float | None,
    force: bool,
) -> None:
    """Export CHECKPOINT, a diffusers Stable Diffusion directory, to a bundle of ONNX engines."""
    if tolerance is not None and not (tolerance > 0 and math.isfinite(tolerance)):
        raise UserError(f"The tolerance {tolerance:g} is no error; give a number above 0.")
    if not len(classifiers) == len(schemes) == len(specs):
        raise UserError(
            f"There are {len(classifiers)} --classifier, {len(schemes)} --classifier-labels and "
            f"{len(specs)} --classifier-input; give one of each for every classifier."
        )
    try:
        from .build import Built, build_bundle
        from .checkpoint import read_checkpoint
        from .classifier import parse_classifier
    except ImportError as error:
        raise UserError(
            f"build-engines needs {error.name}; run `pip install synfer-rt[export]`."
        ) from error
    from rich.console import Console
    from rich.table import Table

    console = Console()
    built: list[Built] = []

    def report(engine: Built) -> None:
        built.append(engine)
        console.print(f"{engine.name}: exported and verified in {engine.seconds:.1f} s")

    sources = tuple(map(parse_classifier, classifiers, schemes, specs))
    source = read_checkpoint(checkpoint, au_adapter, sources)
    bundle = build_bundle(source, out, precision, tolerance, force, report)
    table = Table("engine", "size", "precision", "max relative error", "seconds")
    for engine in built:
        size = f"{engine.bytes / 1e6:.2f} MB"
        error, seconds = f"{engine.error:.1e}", f"{engine.seconds:.1f}"
        table.add_row(engine.name, size, engine.precision, error, seconds)
    console.print(table)
    console.print(f"{bundle.name} is in {out}.", soft_wrap=True)
