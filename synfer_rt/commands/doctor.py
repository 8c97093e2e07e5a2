"""The command `synfer-rt doctor`: what works on this machine."""

from __future__ import annotations

from pathlib import Path

import click

from synfer_rt import __version__
from synfer_rt.commands import options
from synfer_rt.commands.progress import console
from synfer_rt.commands.translation import in_current_options
from synfer_rt.errors import UserError

RUNTIMES = ("onnxruntime", "onnxruntime-gpu", "openvino", "tensorrt", "tensorrt-rtx")
"""Packages that execute engines."""


@click.command()
@options.bundle
def doctor(bundle: Path | None) -> None:
    """Say which backends work here, how to get the others, and whether the bundle is sound.

    Exits with 1 when nothing can be sampled.
    """
    import platform

    from rich.table import Table

    from synfer_rt import backends
    from synfer_rt.backends import onnxruntime
    from synfer_rt.bundle import open_bundle

    screen = console()
    versions = ", ".join(_versions("numpy", "tokenizers", *RUNTIMES))
    click.echo(f"synfer-rt {__version__}, Python {platform.python_version()}, {versions}")
    click.echo(f"{platform.system()} {platform.machine()}, {backends.default_threads()} CPU cores")
    table = Table("backend", "", "to get it", box=None, header_style="bold")
    for status in backends.statuses():
        said = "works" if status.works else f"does not work: {status.reason}"
        table.add_row(status.name, said, status.remedy)
    screen.print(table, markup=False)
    if problem := onnxruntime.installation_problem():
        click.echo(problem)
    try:
        opened = open_bundle(bundle)
        click.echo(f"Bundle {opened.name} {opened.version} is sound ({opened.path})")
        click.echo(f"It runs on {backends.choose(bundle=opened)[1]}")
    except UserError as error:
        click.echo(in_current_options(f"Nothing can be sampled: {error}"))
        click.get_current_context().exit(1)


def _versions(*packages: str) -> list[str]:
    from importlib import metadata

    found = []
    for package in packages:
        try:
            found.append(f"{package} {metadata.version(package)}")
        except metadata.PackageNotFoundError:
            continue
    return found
