"""The command `synfer-rt doctor`: what works on this machine."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from synfer_rt import __version__
from synfer_rt.commands import options
from synfer_rt.commands.progress import console
from synfer_rt.commands.translation import in_current_options

if TYPE_CHECKING:
    from synfer_rt.backends.driver import Gpu


@click.command()
@options.bundle
def doctor(bundle: Path | None) -> None:
    """Say which backends work here, how to get the others, and whether the bundle is sound.

    Each backend computes a convolution, a group normalisation and an attention, which are compared
    with numpy. Exits with 1 when nothing can be sampled.
    """
    from rich.table import Table

    from synfer_rt import api
    from synfer_rt.backends.choice import COMPILES

    found = api.doctor(bundle)
    versions = ", ".join(f"{name} {version}" for name, version in found.packages.items())
    click.echo(f"synfer-rt {__version__}, Python {found.python}, {versions}")
    click.echo(f"{found.system}, {found.cores} CPU cores{_gpu(found.gpu)}")
    table = Table("backend", "", "to get it", box=None, header_style="bold")
    for status in found.backends:
        late = ", but compiles each engine for minutes: never taken by auto"
        works = f"works{late if status.name == COMPILES else ''}"
        said = works if status.works else f"does not work: {status.reason}"
        table.add_row(status.name, said, status.remedy)
    console().print(table, markup=False)
    if found.conflict:
        click.echo(found.conflict)
    if found.bundle is not None:
        opened = found.bundle
        click.echo(f"Bundle {opened.name} {opened.version} is sound ({opened.path})")
    if found.error is None:
        click.echo(f"With --backend auto it runs on {found.runs_on}")
    else:
        click.echo(in_current_options(f"Nothing can be sampled: {found.error}"))
        click.get_current_context().exit(1)


def _gpu(gpu: Gpu | None) -> str:
    """The GPU, and the backends for it, as the end of a line."""
    if gpu is None:
        return ", no NVIDIA GPU"
    have = "has" if len(gpu.others) == 1 else "have"
    others = f"; {' and '.join(gpu.others)} {have} no code for it" if gpu.others else ""
    return (
        f"\n{gpu.name} ({gpu.capability}), driver for CUDA {gpu.cuda}: use "
        f"{' or '.join(gpu.backends)}{others}"
    )
