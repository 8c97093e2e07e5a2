"""The command `synfer-rt export-optimum`."""

from __future__ import annotations

from pathlib import Path

import click

from synfer_rt.commands.options import LocalPath
from synfer_rt.commands.progress import console


@click.command("export-optimum")
@click.argument("checkpoint", type=LocalPath())
@click.option("--out", type=LocalPath(), required=True, help="Directory of the pipeline.")
@click.option(
    "--precision",
    type=click.Choice(["fp32", "fp16"]),
    default="fp32",
    show_default=True,
    help="How weights are stored; the graphs compute in float32.",
)
def export_optimum(checkpoint: Path, out: Path, precision: str) -> None:
    """Write CHECKPOINT, or that of a bundle, as ONNX graphs that optimum's pipelines read.

    `ORTStableDiffusionPipeline.from_pretrained(DIR)` then makes the images that synfer-rt makes of
    the same noise with action units at zero, which pipelines do not take. `build-engines DIR` makes
    a bundle of it again.
    """
    from synfer_rt.export.onnx_pipeline.writing import write_onnx_pipeline

    def say(line: str) -> None:
        console().print(line, markup=False, highlight=False, soft_wrap=True)

    write_onnx_pipeline(checkpoint, out, precision, say)
    say(f"The pipeline is in {out}.")
