"""The command `synfer-rt verify`: whether an output is complete and sound."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from synfer_rt.commands import options
from synfer_rt.commands.notes import note

if TYPE_CHECKING:
    from synfer_rt.jobs.verify import Fault


@click.command()
@click.argument("out", type=options.Output())
def verify(out: Path | str) -> None:
    """Check what `sample` or `augment` wrote: every image, record and label.

    Everything in OUT is read and compared with the run's settings. Each fault is a line with its
    place; then the exit code is 1.
    """
    from synfer_rt import api
    from synfer_rt.commands.progress import ProgressBar

    def show(fault: Fault) -> None:
        click.echo(f"{fault.place}: {fault.problem}")

    with ProgressBar() as bar:
        found = api.verify(out, on_progress=bar, on_fault=show)
    if found.faults:
        number = "1 fault" if len(found.faults) == 1 else f"{len(found.faults)} faults"
        note(
            f"{number} in {out}. Run its command again with --resume: images and shards that "
            "are missing or cut short are made again. For others, delete the image or the shard "
            "that is named first."
        )
        click.get_current_context().exit(1)
    click.echo(f"{out}: all {found.count} images are there and whole.")
